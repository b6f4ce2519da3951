"""Finds the Arrow files of folders that the library `datasets` wrote.

  saved, one split      state.json, which has the names of the files (`Dataset.save_to_disk`)
  saved, all splits     dataset_dict.json, and a folder of the first kind for each split
  prepared              dataset_info.json, and NAME-SPLIT.arrow or NAME-SPLIT-00000-of-00002.arrow: the cache
                        of `load_dataset`; its cache-*.arrow, results of `map` and `filter`, are not read

Folders may be untrusted: names in them that lead out of the folder are rejected. Nothing in them is run.
"""

import re

from gptjax.data.sources import file_access
from gptjax.data.sources.unit import DEFAULT_FIELD, DEFAULT_SPLIT
from gptjax.errors import InputError
from gptjax.storage.files import bounded

STATE, DICTIONARY, INFO = 'state.json', 'dataset_dict.json', 'dataset_info.json'
# In state.json: the rows are selected, or in another order.
INDICES = '_indices_files', '_indices_data_files'
SPLIT = re.compile(r'(?!\.)[\w.+=-]+')
SUFFIX = re.compile(r'[^/*]+')  # after a colon: a split or a field
MAX_SUFFIXES = 2  # :SPLIT:FIELD


def find(where):
  """Return ([(path, bytes)], field) of `GLOB[:FIELD]` or `FOLDER[:SPLIT][:FIELD]`; [] if there is none.

  Raises:
    InputError: the folder is not one of `datasets`, is incomplete or has an indices mapping; no such split.
  """
  name, suffixes = where, []
  while True:
    if len(suffixes) < MAX_SUFFIXES and (found := file_access.find_files(name)):
      return found, *(suffixes or [DEFAULT_FIELD])
    if file_access.is_folder(name):
      return _folder(name.rstrip('/') or '/', suffixes)
    name, _, suffix = name.rpartition(':')
    if not name or not SUFFIX.fullmatch(suffix) or len(suffixes) == MAX_SUFFIXES:
      return [], DEFAULT_FIELD
    suffixes.insert(0, suffix)


def _folder(folder, suffixes):
  """Return the files and the field of a folder."""
  entries = file_access.files_in(folder)
  if DICTIONARY not in entries and STATE in entries:
    if len(suffixes) > 1:
      raise InputError(f'{folder} has one split: write arrow:{folder}:FIELD')
    return _saved_files(folder, entries), *(suffixes or [DEFAULT_FIELD])
  split, field = [*suffixes, *[DEFAULT_SPLIT, DEFAULT_FIELD][len(suffixes):]]
  if DICTIONARY in entries:
    splits = _read(entries, DICTIONARY).get('splits')
    _require_split(folder, split, splits)
    return _saved_files(f'{folder}/{split}', file_access.files_in(f'{folder}/{split}')), field
  if INFO in entries:
    splits = _read(entries, INFO).get('splits')
    _require_split(folder, split, splits)
    return _prepared_files(folder, entries, split, splits), field
  raise InputError(f'{folder} has neither {STATE}, {DICTIONARY} nor {INFO}, so it is not a folder of the '
                   f'library datasets: give its files, arrow:{folder}/*.arrow')


def _read(entries, name):
  """Return the object in a JSON file of the folder."""
  path, _ = entries[name]
  with file_access.open_bytes(path) as file:
    content = file.read(bounded.MAX_FILE_BYTES + 1)
  if len(content) > bounded.MAX_FILE_BYTES:
    raise InputError(f'{path} has more than {bounded.MAX_FILE_BYTES:,} bytes: such a file is not read')
  try:
    value = bounded.parse(content, bounded.MAX_FILE_VALUES)
  except ValueError as error:
    raise InputError(f'{path} is not JSON of datasets: {error}') from None
  if not isinstance(value, dict):
    raise InputError(f'{path} is not of datasets: it is not an object')
  return value


def _require_split(folder, split, splits):
  splits = splits if isinstance(splits, list | dict) else []
  names = sorted(name for name in splits if isinstance(name, str) and SPLIT.fullmatch(name))
  if split not in names:
    raise InputError(f'data set {folder} has no split {split!r}, it has {names}: write '
                     f'arrow:{folder}:SPLIT:FIELD')


def _saved_files(folder, entries):
  """Return [(path, bytes)] of a folder that has one split, in the order of its state.json."""
  if STATE not in entries:
    raise InputError(f'{folder} has no {STATE}: it is incomplete, save the data set again')
  state = _read(entries, STATE)
  files = state.get('_data_files')
  if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
    raise InputError(f'{folder}/{STATE} has no list of files: save the data set again')
  if any(state.get(key) for key in INDICES) or any('skip' in file or 'take' in file for file in files):
    raise InputError(f'{folder} is a selection of the rows of its files, or another order ({STATE}), which '
                     'is not supported: save it again with datasets 2 or newer, '
                     'datasets.load_from_disk(FOLDER).save_to_disk(NEW)')
  names = [file.get('filename') for file in files]
  if wrong := [name for name in names if not isinstance(name, str) or name not in entries]:
    raise InputError(f'{folder} has no file {wrong[0]!r}, which {STATE} has: copy the complete folder')
  return [entries[name] for name in names]


def _prepared_files(folder, entries, split, splits):
  """Return [(path, bytes)] of a split in a folder of the cache."""
  shard = re.compile(rf'(?!cache-|tmp)(.+)-{re.escape(split)}(?:-(\d{{5,}})-of-(\d{{5,}}))?\.arrow')
  found = sorted((int(match[2] or 0), int(match[3] or 1), match[1], name) for name in entries
                 if (match := shard.fullmatch(name)))
  facts = splits[split] if isinstance(splits, dict) else None
  lengths = facts.get('shard_lengths') if isinstance(facts, dict) else None
  wanted = len(lengths) if isinstance(lengths, list) and lengths else found[0][1] if found else 1
  kinds = {(number, prefix) for _, number, prefix, _ in found}
  if [number for number, *_ in found] != list(range(wanted)) or kinds != {(wanted, found[0][2])}:
    raise InputError(f'{folder} must have {wanted} files of the split {split!r}, and it has {len(found)} '
                     '(NAME-SPLIT.arrow, or NAME-SPLIT-00000-of-00002.arrow): prepare it again')
  return [entries[name] for *_, name in found]
