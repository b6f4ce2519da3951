"""An adopted corpus that is there already: is it complete, have its files moved or changed?

A file is read again only if it was written after the manifest, or lies elsewhere now: all others have the
names and sizes that the manifest has. Indices are small, and their digests are among the settings.
"""

import hashlib
import json
from pathlib import Path

from gptjax.data.corpus import corpus_manifest
from gptjax.errors import InputError
from gptjax.storage.files import access, local
from gptjax.storage.files.paths import Url

OPTIONAL = 'begin_of_text', 'index_files'  # settings that a manifest has only if they are given


def file_facts(files):
  """Return [[name, size]] of files.File."""
  return [[file.name, file.size] for file in files]


def index_facts(files):
  """Return [[name, size, SHA-256]] of files.File, which are read."""
  return [[file.name, file.size, sha256(file)] for file in files]


def sha256(file):
  """Return the SHA-256 (hex) of a files.File."""
  digest = hashlib.sha256()
  for chunk in file.chunks():
    digest.update(chunk)
  return digest.hexdigest()


def manifest_of(target, folder, splits, settings):
  """Return the manifest of a complete corpus, after recording where its files are now; None if there is none.

  Args:
    target: Path or Url of the corpus.
    folder: of its files, absolute.
    splits: [scan.Split].
    settings: as `adopt` records them.

  Raises:
    InputError: it is another corpus, or a file has changed.
  """
  if not access.is_file(target / corpus_manifest.MANIFEST):
    return None
  manifest = corpus_manifest.read_manifest(target)
  stored = manifest.get('settings', {})
  differing = [name for name in (*settings, *OPTIONAL) if stored.get(name) != settings.get(name)]
  kind = settings['source'].partition(':')[0]
  if differing == ['source'] and str(stored.get('source')).partition(':')[0] == kind:
    differing = []
  for name in differing:
    raise InputError(f'{target} holds a corpus whose {name} setting is another '
                     f'({str(stored.get(name))[:60]}, not {str(settings.get(name))[:60]}): remove its '
                     f'{corpus_manifest.MANIFEST}, or give another --out')
  moved = corpus_manifest.tokens_folder(target, manifest) != folder
  for split in splits:
    shards = {shard['file']: shard['sha256']
              for shard in manifest['splits'].get(split.name, {'shards': ()})['shards']}
    for file in split.files:
      if (moved or _is_newer(file, target)) and sha256(file) != shards.get(file.name):
        raise InputError(f'{file.path} is not the file that was adopted in {target}, its content is another: '
                         f'remove {target / corpus_manifest.MANIFEST} to adopt what is there now, or give '
                         'another --out')
  return _moved(target, folder, manifest, settings) if moved else manifest


def _is_newer(file, target):
  """Whether a file was written after the manifest of the corpus; of one in a bucket, its size must do."""
  manifest = target / corpus_manifest.MANIFEST
  if isinstance(file.path, Url) or not isinstance(manifest, Path):
    return False
  return local.modified(file.path) >= local.modified(manifest)


def _moved(target, folder, manifest, settings):
  """Record where the files are now; returns the manifest."""
  manifest = {**manifest, 'sources': [settings['source']],
              'settings': {**manifest['settings'], 'source': settings['source']}}
  write(target, folder, manifest)
  return manifest


def write(target, folder, manifest):
  """Write the manifest of a corpus whose files are in `folder`, after adding to it that and its digest."""
  manifest.pop('tokens_folder', None)
  if target != folder:
    manifest['tokens_folder'] = str(folder)
  manifest['digest'] = corpus_manifest.manifest_digest(manifest)
  access.write(target / corpus_manifest.MANIFEST, json.dumps(manifest, sort_keys=True, indent=1) + '\n')
