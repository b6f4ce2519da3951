"""WebText as a whole: from a dump of Reddit and a web archive to a corpus, by any tasks in any order."""

import json
import random
import sys

import pytest
import warc_files
from prepared import contents, documents, run

from gptjax.data import webtext_links
from gptjax.data.sources import documents as sources
from gptjax.data.stages import parts
from gptjax.errors import InputError

INSTALL = "needs libraries for web pages: pip install 'gptjax[webtext]'"
pytest.importorskip('resiliparse', reason=INSTALL)
pytest.importorskip('brotli', reason=INSTALL)
LINES = [
  'He said that the water was low and that the stones on the far side were dry.',
  'They had been told that the archive would be closed until the next morning.',
  'What the letters said about the election was more than anyone had asked for.',
  'There were two inns in the town, and at the first of them she had a room.',
  'It was the first of many walks that he would take along the river that summer.']


def article(rng):
  return ' '.join(rng.choices(LINES, k=rng.randint(15, 40))) + f' It was number {rng.randrange(10**9)}.'


@pytest.fixture
def crawl(tmp_path):
  """A dump, and the archives of a crawl of its links and of some others; returns the expected texts."""
  rng = random.Random(0)
  rows = [{'url': f'http://site{i}.example/page', 'score': i % 6, 'created_utc': 1500000000, 'is_self': False,
           'subreddit': 'news'} for i in range(30)]
  (tmp_path / 'RS_2017-07').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  texts = [article(rng) for _ in range(36)]
  pages = [warc_files.page(text, f'https://www.site{i}.example/page/') for i, text in enumerate(texts)]
  others = [warc_files.record(b'GET / HTTP/1.1\r\n\r\n', f'http://site{i}.example/page', 'request')
            for i in range(36)]
  broken = warc_files.record(warc_files.response(b'\x1f\x8b12345', Content_Encoding='gzip'),
                             'http://site3.example/page')
  both = [record for pair in zip(others, pages, strict=True) for record in pair]
  warc_files.write(tmp_path / 'a.warc.gz', both[:50])
  warc_files.write(tmp_path / 'b.warc', [*pages[25:], broken])
  return [f'Heading\n\n{text}' for i, text in enumerate(texts) if i < 30 and i % 6 >= 3]


def test_the_pages_of_the_links_become_a_corpus(tmp_path, monkeypatch, crawl):
  webtext_links.write_links([str(tmp_path / 'RS_*')], str(tmp_path / 'urls'), progress=False)
  options = {'urls': [f'{tmp_path}/urls/urls-*.txt'], 'clean': 'webtext', 'on_error': 'skip',
             'validation_fraction': 0, 'clean_without': ['near_duplicate', 'repetition']}
  source = [f'warc:{tmp_path}/a.warc.gz', f'warc:{tmp_path}/b.warc']
  run(source, tmp_path / 'text', **options)
  options['urls'] = [f'{tmp_path}/urls/keys-*.bin']
  made = run(source, tmp_path / 'one', **options)
  assert contents(tmp_path / 'text') == contents(tmp_path / 'one')
  assert documents(tmp_path / 'one', 'train') == crawl
  assert made['skipped'] == {'damaged': 1} and made['no_origin']['documents'] == 0
  assert set(made['settings']['libraries']) == {'resiliparse', 'brotli'}
  assert len(made['settings']['urls']) == 64
  expected = contents(tmp_path / 'one')
  assert b'b.warc:byte' in expected['skipped.txt'] and b'site3.example' in expected['skipped.txt']
  monkeypatch.setattr(parts, 'MIN_BYTES', 4000)
  run(source, tmp_path / 'parts', **options)  # the archives are divided
  assert contents(tmp_path / 'parts') == expected
  rng = random.Random(1)
  for tasks in (1, 3, 20):
    for stage in ('judge', 'mark', 'tokenizer', 'encode', 'join'):
      order = [*range(tasks), *rng.choices(range(tasks), k=1)]
      rng.shuffle(order)
      for task in order:
        run(source, tmp_path / f'{tasks}', stage=stage, task=task, tasks=tasks, **options)
    assert contents(tmp_path / f'{tasks}') == expected
  monkeypatch.setattr(sources, 'library_versions', lambda units: {'resiliparse': '0.1'})
  with pytest.raises(InputError, match='with another libraries'):
    run(source, tmp_path / 'one', **options)


def test_blocked_domains_see_the_url_of_a_page(tmp_path, crawl):
  (tmp_path / 'blocked').write_text('site4.example\n')
  made = run(f'warc:{tmp_path}/a.warc.gz', tmp_path / 'corpus', clean='webtext', on_error='skip',
             blocked_domains=str(tmp_path / 'blocked'), clean_without=['near_duplicate', 'repetition'])
  assert made['skipped'] == {'webtext blocked_domain': 1}


def test_a_list_needs_a_web_archive(tmp_path):
  (tmp_path / 'a.txt').write_text('text')
  with pytest.raises(InputError, match=r'--urls=list chooses pages of web archives: give --source=warc:GLOB'):
    run(f'text:{tmp_path}/a.txt', tmp_path / 'corpus', urls=['list'])


def test_other_sources_need_no_library(tmp_path, monkeypatch):
  for name in ('resiliparse', 'brotli'):
    monkeypatch.setitem(sys.modules, name, None)
  (tmp_path / 'a.txt').write_text('some text ' * 50)
  made = run(f'text:{tmp_path}/a.txt', tmp_path / 'corpus', tokenizer='train-char')
  assert made['settings']['libraries'] is None
