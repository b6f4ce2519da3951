"""Uploads a corpus to a bucket while it is prepared in a folder of this machine, the spool.

Complete shards are uploaded in the background while the next ones are written, the manifest last, by one put
that fails if there is one. `progress.json` in the bucket has the settings until then, so that what is
incomplete is not mixed with another corpus. The spool records what was uploaded: after a kill, the same
command on the same machine uploads the rest.
"""

import contextlib
import json
import queue
import threading
from pathlib import Path

from gptjax.data import progress as progress_bar
from gptjax.data.corpus import corpus_manifest, shards
from gptjax.errors import InputError
from gptjax.storage import bucket_ownership, owner_record, ownership
from gptjax.storage.files import access, atomic, buckets, cache, json_files, local, records

RECORD = 'uploaded.json'  # in the spool: {name of a file: [SHA-256, bytes, tag of the object]}


def remove_spool(url):
  """Remove what a killed process has left of a corpus that is complete in the bucket."""
  spool = cache.spool(url)
  if access.is_folder(spool):
    with contextlib.suppress(InputError), ownership.own_folder(spool):  # else another process does it
      clear(spool)


def clear(spool):
  """Remove all in the spool but the record of its owner."""
  for name in access.names(spool):
    if name != owner_record.FILE:
      atomic.remove(spool / name)


class Uploader:
  """Uploads files of the spool in a thread; this process owns the folder in the bucket."""

  def __init__(self, spool, url):
    self._spool, self._url = spool, url
    self._queue, self._offered, self._error = queue.SimpleQueue(), set(), None
    self._record = {}                       # see RECORD
    self._present, self._uploaded = {}, {}  # in the bucket at the start; by this process: {name: SHA-256}
    self._thread = threading.Thread(target=self._work, name='upload', daemon=True)

  def begin(self, settings):
    """Return the settings of the corpus in the bucket: these, after recording them, if it is empty.

    Raises:
      InputError: the folder holds something else.
    """
    self._present = buckets.find(self._url)
    others = {name for name in self._present if not name.startswith(f'{bucket_ownership.FOLDER}/')}
    if unexpected := set() if shards.STATE in self._present else others:
      raise InputError(f'{self._url} is not empty (it holds {min(unexpected)}): give a new folder as --out')
    state, marker = {'settings': settings}, self._url / shards.STATE
    if not buckets.create(marker, json.dumps(records.add_checksum(state), sort_keys=True)):
      try:
        state = records.remove_checksum(records.parse(buckets.read(marker)))
      except ValueError as error:
        raise InputError(f'{marker} is damaged ({error}): remove {self._url} and begin again') from None
    return state.get('settings', {}) if isinstance(state, dict) else {}

  def start(self, settings):
    """Keep what is in the spool if it is a corpus, complete or not, of these settings; begin to upload."""
    spool = self._spool
    try:
      state = (corpus_manifest.read_manifest(spool) if access.is_file(spool / corpus_manifest.MANIFEST) else
               shards.load_state(spool) or {})
      same = state.get('settings') == json.loads(json.dumps(settings))
    except InputError:  # damaged
      same = False
    if not same:
      clear(spool)
    try:
      self._record = json_files.parse(access.read(spool / RECORD))
    except (FileNotFoundError, ValueError):
      self._record = {}
    self._thread.start()

  def offer(self, splits):
    """Upload the complete shards of a committed state, {split: state of its writer}, in the background.

    Raises:
      Exception: an upload has failed.
    """
    for split in splits.values():
      for shard in split['shards']:
        self._put(shard['file'])
    if self._error:
      raise self._error

  def finish(self, manifest, progress):
    """Upload the rest, then the manifest, and return it.

    The shards move from the spool into the cache, if it has room; all else in the spool is removed.

    Args:
      manifest: of the complete corpus in the spool.
      progress: whether to show a bar.
    """
    files = [file for split in manifest['splits'].values() for file in (*split['shards'], split['index'])]
    with progress_bar.bytes_bar('uploading', progress, total=sum(map(self._size, files))) as bar:
      for file in files:
        self._put(file['file'])
      self._queue.put(None)
      for file in files:
        self._wait_for(file)
        bar.update(self._size(file))
    self._put_small_files()
    bucket_ownership.check(self._url / corpus_manifest.MANIFEST)
    content = access.read(self._spool / corpus_manifest.MANIFEST)
    if not buckets.create(self._url / corpus_manifest.MANIFEST, content):
      raise InputError(f'{self._url} has a manifest now, of another process: run the same command again')
    buckets.remove(self._url / shards.STATE)
    for file in files:
      cache.adopt(self._spool / file['file'], file['sha256'])
    clear(self._spool)
    return manifest

  def close(self):
    """End the thread after the upload that is in progress; do not wait for it."""
    self._queue.put(None)

  def _size(self, file):
    return local.size(self._spool / file['file'])

  def _put(self, name):
    if name not in self._offered:
      self._offered.add(name)
      self._queue.put(name)

  def _wait_for(self, file):
    """Return when a file of the manifest is in the bucket, with the content that was hashed for it."""
    while self._thread.is_alive() and file['file'] not in self._uploaded:
      self._thread.join(0.2)
    if self._error:
      raise self._error
    if self._uploaded[file['file']] != file['sha256']:
      raise InputError(f'{self._spool / file["file"]} was changed while it was uploaded: run the same '
                       'command again')

  def _record_of(self, name):
    found = self._record.get(name) if isinstance(self._record, dict) else None
    return found if isinstance(found, list) and len(found) == 3 else ['', 0, '']

  def _put_small_files(self):
    names = [path.relative_to(self._spool) for path in local.matching(self._spool, 'tokenizer/**')]
    for name in [*names, Path('skipped.txt')]:
      if access.is_file(self._spool / name):
        buckets.put(self._url / name.as_posix(), access.read(self._spool / name))

  def _work(self):
    try:
      while (name := self._queue.get()) is not None:
        self._upload(name)
    except BaseException as error:  # raised by the next call
      self._error = error

  def _upload(self, name):
    path = self._spool / name
    size, (sha256, recorded, tag) = local.size(path), self._record_of(name)
    digest = shards.hash_files([path], lambda n_bytes: None)[0]
    present = self._present.get(name)
    if present and (digest, size, present.version) == (sha256, recorded, tag) and present.size == size:
      self._uploaded[name] = digest
      return
    self._record = {other: facts for other, facts in self._record.items() if other != name}
    buckets.put_file(self._url / name, path)
    found = buckets.entry(self._url / name)
    if found is None or found.size != size:
      raise InputError(f'{self._url / name} was changed by another process while it was uploaded: run the '
                       'same command again')
    self._record[name] = [digest, size, found.version]
    atomic.write(self._spool / RECORD, json.dumps(self._record))
    self._uploaded[name] = digest
