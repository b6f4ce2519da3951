"""The cache of what is in buckets stays within its limit, and deletes nothing that is in use."""

import errno
import fcntl
import hashlib
import os
import secrets

import pytest

from gptjax.errors import InputError
from gptjax.storage.files import atomic, buckets, cache, locks, paths, spool

URL = paths.location('gs://b/folder')


@pytest.fixture
def objects(monkeypatch, tmp_path):
  """{Url: bytes} of a bucket that is a dict."""
  content = {}
  entry = lambda url: buckets.Entry(len(content[url]), 'crc', hashlib.sha256(content[url]).hexdigest())
  def download(url, path, size, on_bytes=lambda chunk: None):
    if url not in content:
      raise FileNotFoundError(str(url))
    with atomic.replacing(path) as file:
      on_bytes(content[url][:size])
      file.write(content[url][:size])
  monkeypatch.setattr(buckets, 'entry', lambda url: entry(url) if url in content else None)
  monkeypatch.setattr(buckets, 'find', lambda url: {
    str(name).removeprefix(f'{url}/'): entry(name) for name in sorted(content) if f'{url}/' in str(name)})
  monkeypatch.setattr(buckets, 'download', download)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  monkeypatch.setattr(cache._Settings, 'limit', 0.0)
  monkeypatch.setattr(cache, '_reserved', {})
  monkeypatch.setattr(cache, '_verified', set())
  monkeypatch.setattr(cache, '_used', {})
  yield content
  next_process()


def next_process():
  """As if this process had ended, and another one had begun."""
  for file, _ in cache._used.values():
    file.close()
  cache._used.clear(), cache._reserved.clear()


def add_file(objects, size):
  """Put a random object and copy it; returns the Path of the copy."""
  url, content = URL / secrets.token_hex(4), secrets.token_bytes(size)
  objects[url] = content
  return cache.file(url, hashlib.sha256(content).hexdigest(), size)


def set_age(path, seconds):
  at = path.stat().st_mtime - seconds
  os.utime(path, (at, at))


def test_folders_count_and_those_used_least_recently_are_deleted(objects, monkeypatch):
  monkeypatch.setattr(cache._Settings, 'limit', 1000.0)
  copies = []
  for version in range(4):
    objects[URL / 'weights'] = bytes([version]) * 400
    copies.append(cache.folder(URL))
    next_process()
    set_age(copies[-1].parent, 100 - version)
  assert [copy.is_dir() for copy in copies] == [False, False, True, True]
  objects[URL / 'weights'] = bytes([2]) * 400
  assert cache.folder(URL) == copies[2]  # used again
  next_process()
  add_file(objects, 300)
  assert [copy.is_dir() for copy in copies] == [False, False, True, False]


def test_what_is_in_use_is_not_deleted_and_nothing_else_in_vain(objects, monkeypatch):
  monkeypatch.setattr(cache._Settings, 'limit', 1000.0)
  used, unused = add_file(objects, 400), add_file(objects, 300)
  set_age(used, 100)
  with open(used, 'rb') as file:
    cache.hold(file)
    with pytest.raises(cache.TooSmall, match='beside what is in use'):
      add_file(objects, 700)
    assert used.exists() and unused.exists()
    objects[URL / 'a' / 'tokenizer'] = bytes(300)
    folder = cache.folder(URL / 'a')
    add_file(objects, 300)
    assert used.exists() and not unused.exists() and folder.exists()
  add_file(objects, 400)
  assert not used.exists() and folder.exists()


def test_a_file_that_was_deleted_before_it_is_in_use_is_missing(objects):
  path = add_file(objects, 10)
  with open(path, 'rb') as file:
    path.unlink()
    with pytest.raises(FileNotFoundError):
      cache.hold(file)


def test_a_file_without_room_keeps_no_reservation(objects, monkeypatch):
  monkeypatch.setattr(cache._Settings, 'limit', 1000.0)
  with open(add_file(objects, 800), 'rb') as file:
    cache.hold(file)
    objects[URL / 'x'] = content = secrets.token_bytes(500)
    digest = hashlib.sha256(content).hexdigest()
    assert cache.reserve(digest, 500)
    with pytest.raises(cache.TooSmall):
      cache.file(URL / 'x', digest, 500)
  assert digest not in cache._reserved


def test_what_killed_downloads_have_left_is_removed(objects):
  path = add_file(objects, 10)
  objects[URL / 'a' / 'b'] = b'x'
  folder = cache.folder(URL / 'a')
  other = path.with_name('0' * 64)
  left = [atomic.new_name(other), atomic.new_name(folder)]
  left[0].write_bytes(b'part')
  (left[1] / 'sub').mkdir(parents=True)
  running = atomic.new_name(path.with_name('1' * 64))
  running.write_bytes(b'part')
  with open(path.with_name('1' * 64 + '.lock'), 'a') as lock:
    locks.lock(lock)
    add_file(objects, 10)
  assert not left[0].exists() and not left[1].exists() and running.exists()


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(objects, monkeypatch):
  objects[URL] = b'old'
  download = buckets.download
  def replace_meanwhile(url, path, size, on_bytes=lambda chunk: None):
    download(url, path, size, on_bytes)
    objects[URL] = b'new'
  monkeypatch.setattr(buckets, 'download', replace_meanwhile)
  assert cache.local_file(URL).read_bytes() == b'new'
  versions = iter(range(99))
  monkeypatch.setattr(buckets, 'download', lambda url, path, size: (
    download(url, path, size), objects.update({URL: b'%d' % next(versions)})))
  objects[URL] = b'again'
  with pytest.raises(InputError, match='was replaced while it was read, 5 times'):
    cache.local_file(URL)
  del objects[URL]
  with pytest.raises(InputError, match='does not exist'):
    cache.local_file(URL)


@pytest.mark.parametrize('number', sorted(locks.UNSUPPORTED))
def test_without_locks_files_are_shared_and_nothing_is_deleted(objects, monkeypatch, number):
  def flock(file, how):
    raise OSError(number, os.strerror(number))
  monkeypatch.setattr(fcntl, 'flock', flock)
  path = add_file(objects, 400)
  objects[URL / 'a' / 'b'] = b'x' * 100
  folder = cache.folder(URL / 'a')
  assert (folder / 'b').read_bytes() == b'x' * 100 and cache.folder(URL / 'a') == folder
  monkeypatch.setattr(cache._Settings, 'limit', 600.0)
  with pytest.raises(cache.TooSmall):
    add_file(objects, 500)
  assert path.exists() and folder.exists()
  (spool.folder(URL) / 'file').write_text('x')


def test_another_error_of_a_lock_is_raised(objects, monkeypatch):
  def flock(file, how):
    raise OSError(errno.EIO, os.strerror(errno.EIO))
  monkeypatch.setattr(fcntl, 'flock', flock)
  with pytest.raises(OSError, match=os.strerror(errno.EIO)):
    add_file(objects, 4)


def test_a_spool_that_is_removed_before_it_is_locked_is_made_again(objects, monkeypatch):
  lock, removed = locks.lock, []
  def remove_first(file, *arguments, **options):
    if not removed:
      removed.append(file.name)
      spool._remove_abandoned(cache.root() / 'outgoing')
    return lock(file, *arguments, **options)
  monkeypatch.setattr(spool.locks, 'lock', remove_first)
  folder = spool.folder(URL)
  assert removed and folder.is_dir() and not os.path.exists(removed[0])
