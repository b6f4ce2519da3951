"""Links that are written into a bucket are the local ones, byte for byte."""

import json

import object_storage
import pytest

from gptjax.data import webtext_links
from gptjax.data.links import link_files
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


def test_a_task_that_runs_when_the_links_are_complete_leaves_nothing_behind(url, tmp_path, monkeypatch):
  (tmp_path / 'RS').write_text(json.dumps(
    {'url': 'http://example.org/a', 'score': 3, 'created_utc': 1, 'subreddit': 'a'}) + '\n')
  write = lambda **options: webtext_links.write_links(
    [str(tmp_path / 'RS')], str(url), progress=False, **options)
  done = []
  def late(stage):
    original = getattr(link_files, stage)
    def task(job, number):
      if not done:
        done.append(None)
        done[0] = write()
      original(job, number)
    return task
  for stage in ('select', 'merge'):
    if stage == 'merge':
      write(stage='select')
    with monkeypatch.context() as patched:
      patched.setattr(link_files, stage, late(stage))
      done.clear()
      manifest = write(stage=stage)
    assert manifest == done[0] and not [name for name in buckets.find(url) if name.startswith('work/')]
    buckets.remove_tree(url)
