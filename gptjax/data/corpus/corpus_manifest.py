"""The manifest of a corpus: the content of its files, with digests. It is validated before any use."""

import hashlib
import json
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage.files import access, json_files, paths
from gptjax.storage.files.paths import Url
from gptjax.text import text_checks
from gptjax.text.printable import printable

MANIFEST, VERSION = 'manifest.json', 3
READABLE = (2, 3)  # of version 2, `sha256` of a split is that of its concatenated shards
DTYPES = {'uint16': 1 << 16, 'uint32': 1 << 32}  # dtypes of ids: number of values
MAX_NAME_BYTES = 255  # of a file name
MAX_HEADER = 1 << 16  # bytes before the ids in a shard
MAX_COUNT = 1 << 53  # of tokens, documents or bytes; numbers in JSON are exact up to this
FILE_SCHEMA = {'file': str, 'sha256': str}
SPLIT_SCHEMA = {'tokens': int, 'documents': int, 'bytes': int, 'sha256': str,
                'shards': [{**FILE_SCHEMA, 'tokens': int, '?offset': int}], 'index': FILE_SCHEMA,
                '?begins_within_document': bool}
SCHEMA = {
  'dtype': str, 'content': str, 'splits': {str: SPLIT_SCHEMA}, '?sources': [str], '?clean': str,
  '?validation': str, '?validation_fraction': json_files.NUMBER, '?skipped': {str: int},
  '?settings': {'?sources': [str], '?no_end_of_text': bool}, '?tokens_folder': str,
  '?no_origin': {'documents': int, 'of': int}, '?excluded': {str: {str: int}},
  'tokenizer': {'name': str, 'digest': str, 'n_vocab': int, 'end_of_text': (int, type(None)),
                '?begin_of_text': int}}


def read_manifest(folder):
  """Return the manifest of the corpus in `folder`, here or in a bucket, after checking its digest and schema.

  Raises:
    ValueError: no such folder, no manifest, not JSON, wrong digest, another version, another schema.
  """
  path = paths.parsed(folder) / MANIFEST
  if not isinstance(path, Url) and not access.is_folder(path.parent):
    raise InputError(_missing(folder))
  try:
    manifest = json_files.parse(access.read(path))
  except FileNotFoundError:
    if isinstance(path, Url) and not access.is_folder(path.parent):
      raise InputError(_missing(folder)) from None
    raise InputError(f'{path} does not exist: {folder} is not a corpus, or its preparation is '
                     'incomplete: run the same python -m gptjax.data.prepare again') from None
  except InputError:
    raise
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from None
  except ValueError as error:
    raise InputError(f'{path} is not JSON ({error}): prepare the corpus again') from None
  if not isinstance(manifest, dict) or manifest.get('version') not in READABLE:
    raise InputError(f'{path} is not the manifest of a corpus of version {" or ".join(map(str, READABLE))}: '
                     'remove the folder and prepare the corpus again')
  digest = manifest_digest(manifest)
  if manifest.get('digest') != digest:
    raise InputError(f'{path} has been changed: its digest should be {digest[:12]}, but its field is '
                     f'{str(manifest.get("digest"))[:12]}; prepare the corpus again')
  text_checks.require_valid_json(manifest, str(path))
  if fault := json_files.layout_fault(manifest, SCHEMA) or _contradiction(manifest):
    raise InputError(f'{path} is not the manifest of a corpus: {fault}; prepare the corpus again')
  return manifest


def _missing(folder):
  return f'corpus {folder} does not exist: create it with python -m gptjax.data.prepare'


def is_plain(name):
  """Whether a manifest may have a file of this name: no folder, no control characters, valid Unicode."""
  return name == printable(name) == Path(name).name and len(name) <= MAX_NAME_BYTES


def _contradiction(manifest):
  """Describe the first impossible value of a manifest; '' if there is none."""
  tokenizer, dtype = manifest['tokenizer'], manifest['dtype']
  if dtype not in DTYPES:
    return f'dtype is {dtype[:40]!r}, not one of {", ".join(DTYPES)}'
  if not 0 < tokenizer['n_vocab'] <= min(DTYPES[dtype], 1 << 31):
    return f'ids of {json_files.shown(tokenizer["n_vocab"])} entries do not fit {dtype}'
  for name in ('end_of_text', 'begin_of_text'):
    if not 0 <= (tokenizer.get(name) or 0) < tokenizer['n_vocab']:
      return f'{name} is not an entry of the tokenizer'
  folder = manifest.get('tokens_folder', '/')
  if not (paths.URL.match(folder) or Path(folder).is_absolute()) or '\0' in folder:
    return f'tokens_folder {json_files.shown(folder)} is neither an absolute path nor a URL'
  for name, split in manifest['splits'].items():
    in_shards = [shard['tokens'] for shard in split['shards']]
    if not all(0 <= n < MAX_COUNT for n in (split['tokens'], split['documents'], split['bytes'], *in_shards)):
      return f'a number in splits.{name} is not a valid number of tokens, documents or bytes'
    names = [split['index']['file'], *(shard['file'] for shard in split['shards'])]
    if not all(map(is_plain, names)):
      return f'a file of {name} has no plain name'
    item = 2 if dtype == 'uint16' else 4
    offsets = [shard.get('offset', 0) for shard in split['shards']]
    if not all(0 <= offset <= MAX_HEADER and offset % item == 0 for offset in offsets):
      return f'the ids of a shard of {name} begin at an impossible place'
    if sum(in_shards) != split['tokens']:
      return f'the shards of {name} do not hold its {split["tokens"]:,} tokens'
    if split['tokens'] and not split['documents']:
      return f'the {split["tokens"]:,} tokens of {name} belong to no document'
  return ''


def tokens_folder(root, manifest):
  """Return where the shards are, Path or Url: the folder of the corpus, or that of adopted files."""
  folder = paths.parsed(manifest['tokens_folder']) if 'tokens_folder' in manifest else root
  if isinstance(root, Url) and not isinstance(folder, Url):
    raise InputError(f'the tokens of {root} are in {folder}, a folder of one machine: copy them to a bucket, '
                     'and adopt them again')
  return folder


def manifest_digest(manifest):
  """Return the SHA-256 (hex) of the canonical JSON of all fields except `digest`."""
  return _json_digest({name: value for name, value in manifest.items() if name != 'digest'})


def content_digest(tokenizer, splits):
  """Return the SHA-256 (hex) of the content of a corpus: its tokens, documents and tokenizer.

  The order of the data depends on it, so two corpora of the same text are read in the same order, whatever
  their folders and shard sizes. That of a split's tokens is in `tree`.

  Args:
    tokenizer, splits: as in the manifest.
  """
  return _json_digest({'tokenizer': tokenizer['digest'], 'splits': {
    name: [split['sha256'], split['index']['sha256']] for name, split in splits.items()}})


def _json_digest(value):
  return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()).hexdigest()
