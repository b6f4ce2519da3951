"""Links that are written into a bucket are the local ones, byte for byte."""

import json

import object_storage
import pytest

from gptjax.data import webtext_links
from gptjax.storage.files import buckets, cache, paths

served = object_storage.served(object_storage.GS_AND_SLOWLY_S3)


@pytest.fixture
def url(served, tmp_path, monkeypatch, request):
  """The Url of an empty folder."""
  scheme, _ = served
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  return paths.location(f'{scheme}://buck/{abs(hash(request.node.name))}/urls')


def test_links_in_a_bucket(url, tmp_path):
  rows = [{'url': f'http://example.org/{i % 40}', 'score': i % 9, 'created_utc': i, 'subreddit': 'a'}
          for i in range(200)]
  dump = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'RS_2017-01').write_text(dump)
  webtext_links.write_links([str(tmp_path / 'RS_*')], str(tmp_path / 'urls'), progress=False)
  expected = {path.name: path.read_bytes() for path in (tmp_path / 'urls').iterdir()}
  for stage, tasks in ('select', 2), ('merge', 3):
    for task in range(tasks):
      webtext_links.write_links([str(tmp_path / 'RS_*')], str(url), progress=False, stage=stage, task=task,
                                tasks=tasks)
  assert {name: buckets.read(url / name) for name in buckets.find(url)} == expected
