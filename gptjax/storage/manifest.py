"""The manifest of a checkpoint: JSON that lists its arrays and files with digests, and its own digest."""

import hashlib
import json
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import atomic, bounded, json_files, paths

MANIFEST, STATE = 'manifest.json', 'state'  # STATE: the folder with the arrays
# An array is [shape, dtype, digest], a file [size, digest].
LAYOUT = {'step': int, 'metric': json_files.OPTIONAL_NUMBER, 'arrays': {str: [(list, str)]},
          'files': {str: [(int, str)]},
          'facts': {'?corpus_digest': str, '?rewinds': int, '?rewind_history': [dict]}}


def steps(folder):
  """Return the steps of all checkpoint folders, valid or not, ascending."""
  folder = Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def read_manifest(folder):
  """Return the manifest of one checkpoint, or None if it is absent or damaged."""
  try:
    manifest = json_files.parse(bounded.read(folder / MANIFEST), finite=False)
  except (OSError, ValueError):
    return None
  return manifest if _has_layout(manifest) and manifest == _with_digest(manifest) else None


def _has_layout(manifest):
  """Whether a value has the layout of a manifest."""
  types = lambda entry: [*map(type, entry)]
  return (json_files.layout_fault(manifest, LAYOUT) is None
          and all(types(entry) == [list, str, str] for entry in manifest['arrays'].values())
          and all(types(entry) == [int, str] for entry in manifest['files'].values()))


def write_manifest(folder, manifest):
  """Write the manifest of a checkpoint with its digest, which makes the checkpoint complete.

  Args:
    folder: of the checkpoint, whose files are on disk.
    manifest: dict.
  """
  atomic.write(folder / MANIFEST, json.dumps(_with_digest(manifest), indent=1, sort_keys=True))


def find_fault(path, manifest):
  """Return a description of the first fault of a checkpoint's files; None if there is none."""
  if manifest is None:
    return 'no readable manifest'
  for name, (size, digest) in manifest['files'].items():
    try:
      file = paths.below(path, name)
    except InputError:
      return f'{name!r} is not the name of a file in the checkpoint'
    if not file.is_file():
      return f'{name} is missing'
    if [size, digest] != file_digest(file):
      return f'{name} differs from its hash'
  return None


def file_digests(folder):
  """Return the entry `files` of the manifest of a checkpoint whose arrays are on disk."""
  return {str(path.relative_to(folder)): file_digest(path)
          for path in sorted((folder / STATE).rglob('*')) if path.is_file()}


def file_digest(path):
  """Return [size in bytes, SHA-256 in hex] of a file."""
  with open(path, 'rb') as file:
    return [path.stat().st_size, hashlib.file_digest(file, 'sha256').hexdigest()]


def _with_digest(manifest):
  """Return the manifest with its digest, under the key 'signature'."""
  body = {key: value for key, value in manifest.items() if key != 'signature'}
  text = json.dumps(body, sort_keys=True)
  return {**body, 'signature': hashlib.sha256(text.encode()).hexdigest()}
