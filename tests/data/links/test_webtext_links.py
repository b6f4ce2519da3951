"""Links from dumps of Reddit: which are kept; any tasks in any order write the files of one process."""

import bz2
import itertools
import json
import random
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT

import gptjax
from gptjax.data import webtext_links
from gptjax.data.links import link_files, submissions
from gptjax.data.stages import parts, work
from gptjax.errors import InputError
from gptjax.storage.files import atomic

ROW = {
  'archived': False, 'author': 'someone', 'created_utc': 1483228800, 'domain': 'example.org', 'edited': False,
  'gilded': 0, 'hide_score': False, 'id': '5lc4a1', 'is_self': False, 'link_flair_text': None, 'media': None,
  'media_embed': {}, 'name': 't3_5lc4a1', 'num_comments': 2, 'over_18': False,
  'permalink': '/r/news/comments/5lc4a1/a_title/', 'post_hint': 'link', 'preview': {'images': [{'id': 'x'}]},
  'retrieved_on': 1489500000, 'score': 3, 'selftext': '', 'spoiler': False, 'stickied': False,
  'subreddit': 'news', 'subreddit_id': 't5_2qh3l', 'thumbnail': 'default', 'title': 'A title',
  'url': 'http://example.org/a'}
RULES = submissions.Rules(3, submissions.seconds('2018-01-01'), frozenset(['blocked']),
                          frozenset(['bad.example']), True, False)


def line(without=(), **changes):
  row = {name: value for name, value in {**ROW, **changes}.items() if name not in without}
  return json.dumps(row).encode() + b'\n'


def read(text, rules=RULES):
  link, reason = submissions.read(text, rules)
  return reason or link


def write(out, *dumps, **options):
  return webtext_links.write_links(list(map(str, dumps)), str(out), progress=False, **options)


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def urls_of(folder):
  return [url for name, content in contents(folder).items() if name.startswith('urls-')
          for url in content.decode().split()]


@pytest.mark.parametrize('changes, expected', [
  ({}, submissions.Link('http://example.org/a', 3, 1483228800, 'news')),
  ({'score': '7'}, 7), ({'score': 4.0}, 4), ({'score': '3.0'}, 3), ({'score': 10**30}, 10**30),
  ({'score': 2}, 'low karma'), ({'score': -5}, 'low karma'), ({'score': '2'}, 'low karma'),
  ({'score': None}, 'no karma'), ({'score': 'many'}, 'no karma'), ({'score': True}, 'no karma'),
  ({'score': [3]}, 'no karma'), ({'score': float('nan')}, 'no karma'), ({'score': float('inf')}, 'no karma'),
  ({'without': ['score']}, 'no karma'),
  ({'created_utc': '1483228801'}, submissions.Link('http://example.org/a', 3, 1483228801, 'news')),
  ({'created_utc': 1483228801.0}, submissions.Link('http://example.org/a', 3, 1483228801, 'news')),
  ({'created_utc': 1514764799}, 3), ({'created_utc': 1514764800}, 'after the date'),
  ({'created_utc': '1514764800.0'}, 'after the date'), ({'created_utc': None}, 'no date'),
  ({'without': ['created_utc']}, 'no date'),
  ({'is_self': True, 'url': 'https://www.reddit.com/r/news/comments/5lc4a1/a_title/'}, 'text, not a link'),
  ({'without': ['is_self'], 'domain': 'self.news'}, 'text, not a link'),
  ({'without': ['is_self', 'domain']}, 3),
  ({'url': 'https://www.reddit.com/r/news/'}, 'link to Reddit'),
  ({'url': 'http://np.reddit.com/a'}, 'link to Reddit'),
  ({'url': 'https://i.redd.it/a.html'}, 'link to Reddit'),
  ({'url': 'https://redd.it/5lc4a1'}, 'link to Reddit'),
  ({'url': '/r/news/comments/5lc4a1/a_title/', 'crosspost_parent': 't3_5lc4a0'}, 'link to Reddit'),
  ({'crosspost_parent': 't3_5lc4a0', 'crosspost_parent_list': [ROW]}, 3),
  ({'url': 'http://notreddit.com/a'}, 3),
  ({'url': '[deleted]', 'author': '[deleted]'}, 'no URL of a page'), ({'url': ''}, 'no URL of a page'),
  ({'url': None}, 'no URL of a page'), ({'without': ['url']}, 'no URL of a page'),
  ({'url': 3}, 'no URL of a page'),
  ({'author': '[deleted]', 'selftext': '[removed]'}, 3),
  ({'url': 'http://example.org/a?b=1&amp;c=2'}, 'http://example.org/a?b=1&c=2'),
  ({'url': 'HTTP://EXAMPLE.org:80/a?utm_source=reddit#top'}, 'http://example.org/a'),
  ({'url': 'http://bücher.example/ü'}, 'http://xn--bcher-kva.example/%C3%BC'),
  ({'url': 'http://example.org/a\0b'}, 'no URL of a page'),
  ({'url': 'http://example.org/\ud800'}, 'no URL of a page'),
  ({'subreddit': 'Blocked'}, 'blocked subreddit'), ({'without': ['subreddit'], 'promoted': True}, 3),
  ({'subreddit': 'a\tb\n'}, submissions.Link('http://example.org/a', 3, 1483228800, '')),
  ({'url': 'https://m.bad.example/a'}, 'blocked domain'),
  ({'url': 'https://i.imgur.com/a'}, 'images, video, music or other files'),
  ({'url': 'http://example.org/a.JPG?b'}, 'images, video, music or other files'),
  ({'url': 'https://youtu.be/a'}, 'images, video, music or other files'),
  ({'url': 'http://example.org/a.jpg.html'}, 3), ({'over_18': True}, 3)])
def test_which_link_a_submission_has(changes, expected):
  found = read(line(**changes))
  if isinstance(expected, int):
    assert found.karma == expected
  elif isinstance(expected, str) and expected.startswith('http'):
    assert found.url == expected
  else:
    assert found == expected


@pytest.mark.parametrize('text', [
  b'\n', b'{', b'[]', b'3', b'null', b'"a"', line()[:-20], b'\0' * 50, b'{"url": "http://a.org"\xff}',
  b'[' * 100_000, b'{"score": ' + b'9' * 5000 + b'}'])
def test_a_line_that_is_no_submission(text):
  assert read(text) == 'not a submission'


def test_rules():
  assert read(line(over_18=True), RULES._replace(over_18=False)) == 'over 18'
  assert read(line(url='https://youtu.be/a'), RULES._replace(media=True)).url == 'https://youtu.be/a'
  assert read(line(score=1), RULES._replace(min_karma=1)).karma == 1
  assert submissions.subreddit_name(' /r/News/ ') == submissions.subreddit_name('r/news') == 'news'


def test_submissions_of_a_link_are_joined(tmp_path):
  dump = tmp_path / 'RS_2017-01'
  dump.write_bytes(b''.join([
    line(url='https://www.example.org/a/', score=9, created_utc=30, subreddit='late'),
    line(url='http://example.org/a', score=4, created_utc=10, subreddit='first'),
    line(url='http://example.org/a', score=2, created_utc=5, subreddit='refused'),
    line(url='http://example.org/a#x', score=5, created_utc=20), line(url='http://example.org/b'),
    b'{"dirty\n', b'\n']))
  manifest = write(tmp_path / 'urls', dump)
  assert sorted(urls_of(tmp_path / 'urls')) == ['http://example.org/a', 'http://example.org/b']
  links = [json.loads(text) for text in (tmp_path / 'urls/links-00000.jsonl').read_text().splitlines()]
  assert {'url': 'http://example.org/a', 'karma': 9, 'created': 10, 'subreddit': 'first',
          'submissions': 3} in links
  assert [link['url'] for link in links] == urls_of(tmp_path / 'urls')
  assert (manifest['submissions'], manifest['kept'], manifest['links']) == (6, 4, 2)
  assert manifest['left_out'] == {'low karma': 1, 'not a submission': 1}
  assert set(contents(tmp_path / 'urls')) == {'manifest.json', *manifest['files']}
  summary = webtext_links.summary(manifest).splitlines()
  assert [text.split()[0] for text in summary] == ['6', '1', '1', '4', '2']
  assert summary[-1].endswith('1 file urls-*.txt')


def random_dump(seed, n=300):
  rng = random.Random(seed)
  site = lambda: rng.choice(['http://', 'https://www.']) + 'example.org'
  return b''.join(line(
    url=f'{site()}/{rng.randrange(100)}{rng.choice(["", "/", "#a"])}', score=rng.randint(0, 9),
    created_utc=rng.randrange(50), subreddit=f'r{rng.randrange(9)}') for _ in range(n))


def without_manifest(folder):
  return {name: content for name, content in contents(folder).items() if name != 'manifest.json'}


def test_any_number_of_tasks_in_any_order_writes_the_files_of_one_process(tmp_path, monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  monkeypatch.setattr(link_files, 'FILE_LINKS', 30)
  (tmp_path / 'RS_1').write_bytes(random_dump(1))  # is divided
  (tmp_path / 'RS_2.bz2').write_bytes(bz2.compress(random_dump(2)))
  write(tmp_path / 'one', tmp_path / 'RS_*')
  expected, rng = contents(tmp_path / 'one'), random.Random(0)
  assert len([name for name in expected if name.startswith('urls-')]) > 3
  rows = [json.loads(text) for seed in (1, 2) for text in random_dump(seed).splitlines()]
  paths = lambda found: [url.rstrip('/').partition('#')[0].rstrip('/').rpartition('/')[2] for url in found]
  assert sorted(paths(urls_of(tmp_path / 'one'))) == sorted(
    set(paths(row['url'] for row in rows if row['score'] >= 3)))
  for tasks in (1, 3, 50):
    out = tmp_path / f'tasks{tasks}'
    for stage in ('select', 'merge'):
      order = [*range(tasks), *rng.choices(range(tasks), k=2)]  # some are repeated
      rng.shuffle(order)
      done = [write(out, tmp_path / 'RS_*', stage=stage, task=task, tasks=tasks) for task in order]
    assert any(done) and contents(out) == expected


def test_any_number_of_processes_writes_the_same_files(tmp_path, monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  (tmp_path / 'RS').write_bytes(random_dump(1))
  for workers in (1, 2):
    write(tmp_path / f'{workers}', tmp_path / 'RS', workers=workers)
  assert contents(tmp_path / '1') == contents(tmp_path / '2')


def test_runs_that_do_not_fit_into_memory_and_the_order_of_dumps_change_nothing(tmp_path, monkeypatch):
  for seed in range(3):
    (tmp_path / f'RS_{seed}').write_bytes(random_dump(seed))
  write(tmp_path / 'one', tmp_path / 'RS_*')
  monkeypatch.setattr(link_files, 'RUN_LINKS', 7)
  expected = without_manifest(tmp_path / 'one')
  for order in itertools.permutations(range(3)):
    out = tmp_path / ''.join(map(str, order))
    write(out, *(tmp_path / f'RS_{seed}' for seed in order))
    assert without_manifest(out) == expected


def test_no_link_is_kept(tmp_path):
  (tmp_path / 'RS').write_bytes(line(score=0))
  assert write(tmp_path / 'urls', tmp_path / 'RS')['links'] == 0
  assert urls_of(tmp_path / 'urls') == []


def test_lists_of_subreddits_and_domains(tmp_path):
  (tmp_path / 'RS').write_bytes(line(subreddit='Bad') + line(url='http://a.worse.example/') + line())
  (tmp_path / 'subreddits').write_text('# a comment\nr/bad\n')
  (tmp_path / 'domains').write_text('worse.example\n')
  manifest = write(tmp_path / 'urls', tmp_path / 'RS', blocked_subreddits=str(tmp_path / 'subreddits'),
                   blocked_domains=str(tmp_path / 'domains'))
  assert manifest['left_out'] == {'blocked subreddit': 1, 'blocked domain': 1}


def test_a_dump_that_is_cut_short(tmp_path):
  (tmp_path / 'RS.bz2').write_bytes(bz2.compress(line() * 500)[:-10])
  with pytest.raises(InputError, match=r'RS.bz2:\d+: damaged or cut short.*--on_error=skip'):
    write(tmp_path / 'urls', tmp_path / 'RS.bz2')
  manifest = write(tmp_path / 'urls', tmp_path / 'RS.bz2', on_error='skip')
  assert manifest['left_out'] == {'rest of a damaged file': 1} and manifest['links'] == 1


def test_a_dump_with_a_window_of_two_gigabytes(tmp_path, monkeypatch):
  zstd = pytest.importorskip('compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd',
                             reason="needs backports.zstd: pip install 'gptjax[webtext]'")
  compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31,
                                            zstd.CompressionParameter.enable_long_distance_matching: 1})
  dump = tmp_path / 'RS_2017-01.zst'
  content = random_dump(1)
  dump.write_bytes(compressor.compress(content) + compressor.flush())
  (tmp_path / 'RS').write_bytes(content)
  write(tmp_path / 'zst', dump)
  write(tmp_path / 'plain', tmp_path / 'RS')
  assert urls_of(tmp_path / 'zst') == urls_of(tmp_path / 'plain')
  for cut in (5, len(dump.read_bytes()) // 2, len(dump.read_bytes()) - 1):
    (tmp_path / 'cut.zst').write_bytes(dump.read_bytes()[:cut])
    with pytest.raises(InputError, match='damaged or cut short'):
      write(tmp_path / 'cut', tmp_path / 'cut.zst')
  monkeypatch.setitem(sys.modules, 'backports.zstd', None)
  monkeypatch.setitem(sys.modules, 'backports', None)
  monkeypatch.setitem(sys.modules, 'compression', None)
  with pytest.raises(InputError, match=r"needs backports.zstd: pip install 'gptjax\[webtext\]'"):
    write(tmp_path / 'missing', dump)


def test_errors_have_one_line(tmp_path):
  (tmp_path / 'RS').write_bytes(line())
  with pytest.raises(InputError, match=r'--source=.*none: no file has this name'):
    write(tmp_path / 'urls', tmp_path / 'none')
  with pytest.raises(InputError, match='--before=2018 must be a date, YYYY-MM-DD'):
    write(tmp_path / 'urls', tmp_path / 'RS', before='2018')
  with pytest.raises(InputError, match='--task=2 --tasks=2: tasks are numbered from 0'):
    write(tmp_path / 'urls', tmp_path / 'RS', stage='select', task=2, tasks=2)
  with pytest.raises(InputError, match='--stage=select is not complete'):
    write(tmp_path / 'urls', tmp_path / 'RS', stage='merge')
  for out in ('RS', 'RS/urls'):
    with pytest.raises(InputError, match=rf'{out} is not writable \(.*\): use another folder'):
      write(tmp_path / out, tmp_path / 'RS')
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other/file').write_text('')
  with pytest.raises(InputError, match=r'other is not empty \(it holds file\)'):
    write(tmp_path / 'other', tmp_path / 'RS')
  write(tmp_path / 'urls', tmp_path / 'RS')
  with pytest.raises(InputError, match=r'holds the result of another min_karma \(3, not 4\)'):
    write(tmp_path / 'urls', tmp_path / 'RS', min_karma=4)
  damaged = (tmp_path / 'urls/manifest.json').read_text().replace('"links": 1', '"links": 2')
  (tmp_path / 'urls/manifest.json').write_text(damaged)
  with pytest.raises(InputError, match=r'manifest.json is damaged'):
    write(tmp_path / 'urls', tmp_path / 'RS')


def test_the_command(tmp_path):
  (tmp_path / 'RS').write_bytes(line() + line(score=0))
  command = [sys.executable, '-m', 'gptjax.data.webtext_links', f'--source={tmp_path}/RS',
             f'--out={tmp_path}/urls']
  done = subprocess.run([*command, '--stage=select', '--tasks=2', '--task=1'], env=ENVIRONMENT, check=True,
                        capture_output=True, text=True)
  assert done.stdout == 'task 1 of 2 of --stage=select is complete\n'
  done = subprocess.run([*command, '--workers=2'], env=ENVIRONMENT, check=True, capture_output=True,
                        text=True)
  assert done.stdout.splitlines()[-1].split()[:3] == ['1', 'URLs,', 'each']
  assert (tmp_path / 'urls/urls-00000.txt').read_text() == 'http://example.org/a\n'


def test_what_is_complete_is_not_done_again(tmp_path, monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  (tmp_path / 'RS').write_bytes(random_dump(1))
  write(tmp_path / 'one', tmp_path / 'RS')
  select, done = link_files.select, []
  def fails_once(job, number):
    if number == 2 and number not in done:
      done.append(number)
      raise KeyboardInterrupt
    done.append(number)
    select(job, number)
  monkeypatch.setattr(link_files, 'select', fails_once)
  with pytest.raises(KeyboardInterrupt):
    write(tmp_path / 'two', tmp_path / 'RS')
  write(tmp_path / 'two', tmp_path / 'RS')
  assert contents(tmp_path / 'one') == contents(tmp_path / 'two')
  assert sorted(done) == sorted([2, *range(max(done) + 1)])


def stopped(monkeypatch, out, dump, **options):
  """Write links, and stop after the last file and before the manifest."""
  def stop(job):
    raise KeyboardInterrupt
  with monkeypatch.context() as patched:
    patched.setattr(webtext_links, 'PIPELINE', webtext_links.PIPELINE._replace(manifest=stop))
    with pytest.raises(KeyboardInterrupt):
      write(out, dump, **options)


def test_files_of_other_settings_do_not_stay_among_the_links(tmp_path, monkeypatch):
  """`prepare --urls='urls/keys-*.bin'` would read them too."""
  monkeypatch.setattr(link_files, 'FILE_LINKS', 30)
  (tmp_path / 'RS').write_bytes(random_dump(1))
  write(tmp_path / 'one', tmp_path / 'RS', min_karma=8)
  stopped(monkeypatch, tmp_path / 'urls', tmp_path / 'RS')
  with pytest.raises(InputError, match=r'urls holds keys-00000.bin, which is not of these settings: remove'):
    write(tmp_path / 'urls', tmp_path / 'RS', min_karma=8)
  select = link_files.select
  def selected(job, number):  # and a task of other settings that still runs writes its file
    (job.out / 'keys-00099.bin').write_bytes(b'')
    select(job, number)
  monkeypatch.setattr(link_files, 'select', selected)
  with pytest.raises(InputError, match=r'late holds keys-00099.bin, which is not of these settings: remove'):
    write(tmp_path / 'late', tmp_path / 'RS', min_karma=8)
  (tmp_path / 'late' / 'keys-00099.bin').unlink()
  assert write(tmp_path / 'late', tmp_path / 'RS', min_karma=8)
  assert contents(tmp_path / 'late') == contents(tmp_path / 'one')


def test_results_of_another_version_are_not_used(tmp_path, monkeypatch):
  (tmp_path / 'RS').write_bytes(line())
  monkeypatch.setattr(gptjax, '__version__', '99.1')
  write(tmp_path / 'urls', tmp_path / 'RS', stage='select')
  monkeypatch.undo()
  with pytest.raises(InputError, match='--stage=select is not complete'):
    write(tmp_path / 'urls', tmp_path / 'RS', stage='merge')
  for stage in ('select', 'merge'):
    write(tmp_path / 'urls', tmp_path / 'RS', stage=stage)
  assert [path.name for path in (tmp_path / 'urls').iterdir() if path.is_dir()] == []


def test_the_names_of_files_are_durable_before_the_record_of_their_result(tmp_path, monkeypatch):
  (tmp_path / 'RS').write_bytes(line())
  events, sync, record = [], atomic.sync, work.write_record
  monkeypatch.setattr(atomic, 'sync', lambda path: [events.append(str(path)), sync(path)])
  monkeypatch.setattr(work, 'write_record', lambda folder, *rest: [
    events.append(folder.name), record(folder, *rest)])
  write(tmp_path / 'urls', tmp_path / 'RS')
  assert str(tmp_path / 'urls') in events[events.index('select'):events.index('merge')]
