"""The n-grams of test sets, which `prepare --exclude` keeps out of a corpus.

A test set is a source KIND:WHERE, or a file, a glob or a folder, whose files are read by the endings of their
names. Every process has the keys of all test sets in memory: about 20 bytes per word. They are in the work
folder, from which workers read them:

    excluded.keys      uint64: all keys, sorted, each once
    excluded.members   int64: the indices of the keys of each test set, sorted; one set after the other
    excluded.json      the record: how many of them each set has
"""

import glob
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.data.corpus import corpus_manifest
from gptjax.data.ngrams import key_set, windows
from gptjax.data.ngrams import keys as ngram_keys
from gptjax.data.sources import documents, file_access
from gptjax.data.stages import parts, work
from gptjax.errors import InputError
from gptjax.storage.files import access, paths
from gptjax.text.redacted import redacted

NAME = 'excluded'  # in the work folder, and in `known`
BLOCK_CHARACTERS = 1 << 20  # whose keys are computed together


class Excluded(NamedTuple):
  """The test sets of a corpus, without their keys.

  n: words of an n-gram.
  spans: whether only the shared words are removed, not the whole document.
  counts: {name of a test set: {'documents', 'skipped', 'short', 'ngrams': int}}.
  digest: of the Keys.
  """
  n: int
  spans: bool
  counts: dict
  digest: str

  @property
  def settings(self):
    """What a corpus depends on, as JSON."""
    return {'words': self.n, 'spans': self.spans, 'sets': list(self.counts), 'digest': self.digest}


class Keys(NamedTuple):
  """The keys of test sets.

  keys: KeySet of all test sets.
  members: {name of a test set: int64 array, the sorted indices of its keys}.
  """
  keys: key_set.KeySet
  members: dict

  @property
  def digest(self):
    """The SHA-256 (hex) of all of them."""
    digest = hashlib.sha256(self.keys.keys.astype('<u8').data)
    for index in self.members.values():
      digest.update(len(index).to_bytes(8, 'little') + index.astype('<u8').tobytes())
    return digest.hexdigest()


def write(job, own):
  """Write the Keys of a job into its work folder, unless they are there, and keep them in this process."""
  if work.read_record(job.work, NAME) is None:
    access.make_folder(job.work)
    work.write(job.work / f'{NAME}.keys', own.keys.keys.astype('<u8'))
    work.write(job.work / f'{NAME}.members', np.concatenate(list(own.members.values())).astype('<i8'))
    work.write_record(job.work, NAME, {'sizes': [len(index) for index in own.members.values()]})
  job.known[NAME] = own


def keys(job):
  """Return the Keys of a job, which each process reads once.

  Raises:
    InputError: they are missing or damaged.
  """
  if NAME not in job.known:
    record = work.read_record(job.work, NAME)
    if record is None:
      raise InputError(f'{job.work / NAME}.json is missing: run the same command again')
    every = np.array(work.read(job.work / f'{NAME}.keys', '<u8'))
    members = np.split(work.read(job.work / f'{NAME}.members', '<i8'), np.cumsum(record['sizes'])[:-1])
    own = Keys(key_set.KeySet.of(every), dict(zip(job.excluded.counts, members, strict=True)))
    if own.digest != job.excluded.digest:
      raise InputError(f'{job.work / NAME}.keys is damaged: remove {job.work} and run the same command again')
    job.known[NAME] = own
  return job.known[NAME]


def read(test_sets, n, spans, *, separator, tfds_dir, stop_on_error):
  """Return (the Excluded of test sets, their Keys); None and None if there are none.

  Args:
    test_sets: list of KIND:WHERE, files, globs or folders.
    n: words of an n-gram.
    spans: whether only the shared words are removed.
    separator, tfds_dir, stop_on_error: as for the sources of a corpus.

  Raises:
    InputError: a test set is missing or given twice; an unusable document, if `stop_on_error`.
  """
  if not test_sets:
    return None, None
  found, counts = {}, {}
  for test_set in test_sets:
    name = redacted(test_set)
    if name in found:
      raise InputError(f'--exclude={name} is given twice')
    units = documents.units(_sources(test_set), tfds_dir)
    pieces = (piece for unit in units for piece in documents.pieces(unit, separator, tfds_dir))
    found[name], counts[name] = _read(pieces, n, stop_on_error)
  every = key_set.KeySet.of(np.concatenate([np.empty(0, np.uint64), *found.values()]))
  members = {name: np.searchsorted(every.keys, own) for name, own in found.items()}
  own = Keys(every, members)
  return Excluded(n, spans, counts, own.digest), own


def _sources(test_set):
  """Return the sources, KIND:WHERE, of a test set."""
  kind, colon, _ = test_set.partition(':')
  if colon and kind in documents.KINDS:
    return [test_set]
  where = paths.expanded(test_set, documents.KINDS)
  if _is_folder(where):
    if access.is_file(paths.parsed(where) / corpus_manifest.MANIFEST):
      raise InputError(f'--exclude={redacted(test_set)} is a corpus: write corpus:{redacted(test_set)}:SPLIT')
    where = f'{where.rstrip("/")}/**/*' if paths.split_url(where)[0] else f'{glob.escape(where)}/**/*'
  files = file_access.find_files(where)
  if not files:
    raise InputError(f'--exclude={redacted(test_set)}: no file has this name')
  return [f'{documents.kind_of(path)}:{path}' for path, _ in files]


def _is_folder(where):
  scheme, rest = paths.split_url(where)
  if scheme:
    return scheme in paths.BUCKETS and not set(rest) & set('*?[') and access.is_folder(paths.location(where))
  return access.is_folder(Path(where))


def _read(pieces, n, stop_on_error):
  """Return (the sorted keys of a test set, each once; its counts)."""
  counts, found = {'documents': 0, 'skipped': 0}, [np.empty(0, np.uint64)]
  with_ngrams, last = 0, 0
  for texts, numbers in _blocks(pieces, n, stop_on_error, counts):
    ngrams = ngram_keys.ngram_keys(texts, n)
    found.append(key_set.sorted_unique(ngrams.keys))
    own = np.unique(np.array(numbers, int)[ngrams.text_indices])  # of documents
    with_ngrams += np.count_nonzero(own != last)  # a document may be in several blocks
    last = int(own[-1]) if len(own) else last
  own = key_set.sorted_unique(np.concatenate(found))
  return own, counts | {'short': counts['documents'] - int(with_ngrams), 'ngrams': len(own)}


def _blocks(pieces, n, stop_on_error, counts):
  """Yield (texts, number of the document of each, from 1); count the documents."""
  texts, numbers, size, stream = [], [], 0, windows.Windows(n)
  for piece in pieces:
    if piece.problem:
      if stop_on_error:
        raise InputError(parts.unusable_message(piece.location, piece.problem))
      counts['skipped'] += 1
      continue
    counts['documents'] += piece.start == 0
    texts.append(stream.add(piece).text)
    numbers.append(counts['documents'])
    size += len(texts[-1])
    if size >= BLOCK_CHARACTERS:
      yield texts, numbers
      texts, numbers, size = [], [], 0
  yield texts, numbers
