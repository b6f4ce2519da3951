"""Files in buckets are opened again, at the same position, after faults that pass."""

import gzip
import io
from types import SimpleNamespace

import fsspec
import pytest

from gptjax.data.sources import file_access
from gptjax.errors import InputError, Unavailable
from gptjax.storage.files import buckets

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture
def opened(monkeypatch):
  """Serves CONTENT at any URL through a file whose every third read fails; yields its faults and openings."""
  state = SimpleNamespace(content=CONTENT, fault=ConnectionError('reset by peer'), reads=0, openings=0)
  class File(io.BytesIO):
    def readinto(self, buffer):
      state.reads += 1
      if state.fault and state.reads % 3 == 0:
        raise state.fault
      return super().readinto(buffer)
  def open_file(url, mode, **options):
    state.openings += 1
    return SimpleNamespace(open=lambda: File(state.content))
  monkeypatch.setattr(fsspec, 'open', open_file)
  monkeypatch.setattr(buckets, 'file_system', lambda url: None)
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.0)
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 5)
  return state


@pytest.mark.parametrize('scheme', ['gs', 'gcs', 's3'])
def test_a_file_is_opened_again_at_the_same_position(opened, scheme):
  with file_access.open_bytes(f'{scheme}://b/file.txt') as file:
    assert file.read() == CONTENT
    file.seek(1000)
    assert file.read(500) == CONTENT[1000:1500]
  assert opened.openings > 1


def test_a_compressed_file_too(opened):
  opened.content = gzip.compress(CONTENT)
  with file_access.open_bytes('gs://b/file.txt.gz') as file:
    assert file.read() == CONTENT


def test_a_fault_that_lasts_is_one_line(opened, monkeypatch):
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', -1)
  with (pytest.raises(Unavailable, match=r'^gs://b/file: the storage has not answered for'),
        file_access.open_bytes('gs://b/file') as file):
    file.read()


def test_other_urls_are_tried_once(opened):
  with (pytest.raises(InputError, match=r'https://b/file cannot be read: ConnectionError reset by peer'),
        file_access.open_bytes('https://b/file') as file):
    file.read()
  assert opened.openings == 1


def test_a_listing_is_repeated(monkeypatch, opened):
  attempts = []
  def url_to_fs(pattern, **options):
    attempts.append(pattern)
    if len(attempts) < 3:
      raise ConnectionError('reset by peer')
    return SimpleNamespace(glob=lambda path, detail: {'b/a.txt': {'type': 'file', 'size': 7}},
                           unstrip_protocol=lambda name: f'gs://{name}'), 'b/*.txt'
  monkeypatch.setattr(fsspec.core, 'url_to_fs', url_to_fs)
  assert file_access.find_files('gs://b/*.txt') == [('gs://b/a.txt', 7)] and len(attempts) == 3
