"""The manifest of a checkpoint: JSON that lists its arrays and files with digests, and its own digest."""

import hashlib
import json

from gptjax.errors import InputError, Unavailable
from gptjax.storage.files import access, buckets, json_files, local, paths
from gptjax.storage.files.paths import Url

MANIFEST, STATE = 'manifest.json', 'state'  # STATE: the folder with the arrays
SHA256 = 'sha256'
# An array is [shape, dtype, digest], a file [size, checksum], see `file_facts`.
LAYOUT = {'step': int, 'metric': json_files.OPTIONAL_NUMBER, 'arrays': {str: [(list, str)]},
          'files': {str: [(int, str)]},
          'facts': {'?corpus_digest': str, '?rewinds': int, '?rewind_history': [dict]}}


def read_manifest(folder):
  """Return the manifest of one checkpoint, or None if it is absent or damaged."""
  try:
    manifest = json_files.parse(access.read(folder / MANIFEST), finite=False)
  except Unavailable:  # which does not say that it is damaged
    raise
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
  access.write(folder / MANIFEST, json.dumps(_with_digest(manifest), indent=1, sort_keys=True))


def find_fault(path, manifest):
  """Return a description of the first fault of a checkpoint's files; None if there is none."""
  if manifest is None:
    return 'no readable manifest'
  if not manifest['files']:
    return 'no files'
  listed = buckets.find(path) if isinstance(path, Url) else None
  for name, entry in manifest['files'].items():
    try:
      file = paths.below(path, name)
    except InputError:
      return f'{name!r} is not the name of a file in the checkpoint'
    if not (file.is_file() if listed is None else name in listed):
      return f'{name} is missing'
    if not (_same_file(entry, file) if listed is None else _same_object(entry, listed[name])):
      return f'{name} differs from its checksum'
  return None


# A checkpoint that was copied from a bucket, or into one, has checksums of another kind: then the sizes are
# compared, and the digests of its arrays when it is restored.

def _same_file(entry, path):
  size, checksum = entry
  return path.stat().st_size == size and (_kind(checksum) != SHA256 or _hash(path) == checksum)


def _same_object(entry, found):
  size, checksum = entry
  return found.size == size and (_kind(checksum) != _kind(found.checksum) or found.checksum == checksum)


def _kind(checksum):
  return checksum.partition(':')[0] if ':' in checksum else SHA256


def file_facts(folder):
  """Return the entry `files` of the manifest of a checkpoint whose arrays are written.

  Returns:
    {name: [size in bytes, checksum]}: SHA-256 in hex of a file on this machine; of an object, which is not
    read back, the checksum in the list of the bucket, `crc32c:...` or `etag:...`.
  """
  if isinstance(folder, Url):
    return {name: [entry.size, entry.checksum] for name, entry in buckets.find(folder).items()
            if name.startswith(f'{STATE}/')}
  return {str(path.relative_to(folder)): [path.stat().st_size, _hash(path)]
          for path in sorted((folder / STATE).rglob('*')) if path.is_file()}


def _hash(path):
  with local.opened(path) as file:
    return hashlib.file_digest(file, SHA256).hexdigest()


def _with_digest(manifest):
  """Return the manifest with its digest, under the key 'signature'."""
  body = {key: value for key, value in manifest.items() if key != 'signature'}
  text = json.dumps(body, sort_keys=True)
  return {**body, 'signature': hashlib.sha256(text.encode()).hexdigest()}
