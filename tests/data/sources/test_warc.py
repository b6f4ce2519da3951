"""Web archives: the records in them, whatever is damaged, and the text of their pages."""

import bz2
import collections
import gzip
import io
import itertools
import random
import subprocess
import sys
import zlib

import pytest
import warc_files
from conftest import ENVIRONMENT
from source_files import problems, read
from warc_files import PROSE, chunked, html, page, record, response, write

from gptjax.data.links import url_list
from gptjax.data.sources import documents, file_access
from gptjax.data.sources.warc import records
from gptjax.errors import InputError, Unavailable

INSTALL = "needs libraries for web pages: pip install 'gptjax[webtext]'"
pytest.importorskip('resiliparse', reason=INSTALL)
brotli = pytest.importorskip('brotli', reason=INSTALL)
SUFFIXES = ['.warc.gz', '.warc']
TEXT = (PROSE * 5).strip()


def everything(path, first=0, end=None):
  return list(records.read(str(path), lambda headers: True, first, end))


def some_records(n, seed=0):
  """Records of all types and of sizes around those of the reader's buffers."""
  rng = random.Random(seed)
  found = [record(b'software: a crawler\r\n', kind='warcinfo', Content_Type='application/warc-fields')]
  for i in range(n):
    url = f'http://example.org/{i}'
    found += [
      record(b'GET / HTTP/1.1\r\nHost: example.org\r\n\r\n', url, 'request'),
      page(f'{i}. ' + PROSE * rng.randint(1, 40), url),
      record(response(rng.randbytes(rng.choice([0, 1, 500, 1 << 16, 70_000])), 'image/png'), url + '.png')]
  return [*found, record(b'a: b', kind='metadata', Content_Type='application/warc-fields')]


def extracted(path, **options):
  """The texts and problems of the pages of a file."""
  pieces = [piece for unit in documents.units([f'warc:{path}'], '')
            for piece in documents.pieces(unit, '', '', **options)]
  return [piece.problem or piece.text for piece in pieces]


def only_text(tmp_path, content, **options):
  """The text or problem of a single record."""
  found, = extracted(write(tmp_path / 'one.warc.gz', [record(content, **options)]))
  return found


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_the_records_are_those_of_fastwarc(tmp_path, suffix):
  warc = pytest.importorskip('fastwarc.warc')
  path = write(tmp_path / f'a{suffix}', some_records(20))
  with path.open('rb') as file:
    expected = [(one.stream_pos, one.headers['WARC-Target-URI'], one.reader.read())
                for one in warc.ArchiveIterator(file, parse_http=False)]
  found = [(one.start, one.headers['warc-target-uri'], one.content) for one in everything(path)]
  assert found == expected and len(found) == 62


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_each_record_is_in_one_part_wherever_the_borders_are(tmp_path, suffix):
  made = some_records(4)
  path = write(tmp_path / f'a{suffix}', made)
  whole, size, rng = everything(path), path.stat().st_size, random.Random(1)
  at_records = [position + shift for position in warc_files.ends(path, made) for shift in (-1, 0, 1)]
  for border in [1, *at_records, *rng.choices(range(1, size), k=50)]:
    assert everything(path, 0, border) + everything(path, border) == whole, border
  borders = [0, *sorted(rng.choices(range(1, size), k=9)), None]
  parts = [everything(path, *pair) for pair in itertools.pairwise(borders)]
  assert list(itertools.chain.from_iterable(parts)) == whole and len(whole) == len(made)


def test_parts_of_a_file_with_plain_line_breaks_have_all_its_records(tmp_path):
  made = [record(b'a' * 300, f'http://example.org/{i}') for i in range(9)]
  path = write(tmp_path / 'a.warc', [one.replace(b'\r\n', b'\n') for one in made])
  whole = everything(path)
  assert len(whole) == 9 and not any(one.problem for one in whole)
  for border in range(1, path.stat().st_size, 7):
    assert everything(path, 0, border) + everything(path, border) == whole, border


def test_a_gzip_file_whose_members_are_not_records(tmp_path):
  plain = b''.join(some_records(3))
  expected = everything(write(tmp_path / 'a.warc', some_records(3)))
  blocks = [plain[at:at + 5000] for at in range(0, len(plain), 5000)]
  for name, members in ('one', [plain]), ('blocks', blocks):
    path = tmp_path / f'{name}.warc.gz'
    path.write_bytes(b''.join(map(gzip.compress, members)) + bytes(10))
    for border in range(1, path.stat().st_size, 997):
      found = everything(path, 0, border) + everything(path, border)
      assert [one._replace(start=0) for one in found] == [one._replace(start=0) for one in expected]


def test_a_file_that_is_compressed_in_another_way_is_one_part(tmp_path):
  (tmp_path / 'a.warc.bz2').write_bytes(bz2.compress(b''.join(some_records(3))))
  expected = everything(write(tmp_path / 'a.warc', some_records(3)))
  assert everything(tmp_path / 'a.warc.bz2') == expected
  unit, = documents.units([f'warc:{tmp_path}/a.warc.bz2'], '')
  assert documents.positions(unit._replace(size=10**9), 10**6) == []
  assert documents.positions(unit._replace(path='a.warc.gz', size=10**9), 10**8)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_every_cut_is_a_problem_unless_it_is_between_records(tmp_path, suffix):
  made = [page(PROSE, f'http://example.org/{i}') for i in range(3)]
  path = write(tmp_path / f'a{suffix}', made)
  whole, content, borders = everything(path), path.read_bytes(), [0, *warc_files.ends(path, made)]
  for cut in [*range(borders[1] - 8, borders[1] + 60), *range(borders[1] + 60, borders[2], 17)]:
    path.write_bytes(content[:cut])
    found = everything(path)
    good = [one for one in found if not one.problem]
    assert good == whole[:len(good)] and len(good) >= sum(cut >= end for end in borders[1:])
    complete = {end - padding for end in borders for padding in range(5 if suffix == '.warc' else 1)}
    assert [one.problem.partition(' within')[0] for one in found[len(good):]] in (
      [[]] if cut in complete else [['cut short'], ['damaged: a record does not begin with WARC/1']])


def test_damage_costs_one_record(tmp_path):
  made = [page(PROSE * i, f'http://example.org/{i}') for i in range(1, 5)]
  path = write(tmp_path / 'a.warc.gz', made)
  whole, content = everything(path), path.read_bytes()
  for at in range(0, len(content), 29):
    damaged = bytearray(content)
    damaged[at] ^= 0x55
    path.write_bytes(damaged)
    found = everything(path)
    lost = [one for one in whole if one not in found]
    assert len(lost) <= 1 and len(found) - (len(whole) - len(lost)) in (0, 1)
    assert not lost or [one.problem for one in found if one.problem], at
    for border in warc_files.ends(path, made)[:-1]:
      assert everything(path, 0, border) + everything(path, border) == found, (at, border)


@pytest.mark.parametrize('content, problem', [
  (b'', None), (b'hello\n' * 99, 'does not begin with WARC/1'),
  (gzip.compress(b'hello', mtime=0), 'does not begin'),
  (b'WARC/1.0\r\nWARC-Type: response\r\n\r\n', "with the length ''"),
  (b'WARC/1.0\r\nContent-Length: -5\r\n\r\n', "with the length '-5'"),
  (b'WARC/1.0\r\n' + b'a: b\r\n' * 20_000, 'headers of more than 65,536 bytes'),
  (record(b'x', length=10**17), 'cut short within a record')])
def test_what_is_not_a_record(tmp_path, content, problem):
  (tmp_path / 'a.warc').write_bytes(content)
  found = everything(tmp_path / 'a.warc')
  assert (problem in found[0].problem) if problem else not found


def test_a_record_that_is_too_long_is_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(records, 'MAX_CONTENT', 10_000)
  video = b'\0' * 20_000
  path = write(tmp_path / 'a.warc.gz', [
    page(PROSE * 1000, 'http://example.org/long'), record(response(video, 'video/mp4'), 'http://example.org/b'),
    record(video, 'http://example.org/c', 'resource', Content_Type='video/mp4'), page(TEXT)])
  assert extracted(path) == ['too long: a record of more than 10,000 bytes', f'Heading\n\n{TEXT}']


def test_a_web_archive_is_not_read_as_text(tmp_path):
  path = write(tmp_path / 'a.warc', some_records(1))
  assert [problem for _, problem in problems(read(f'text:{path}'))] == [
    'not text, a web archive: read it by warc:']
  with pytest.raises(InputError, match='has no kind: write warc:'):
    read(str(write(tmp_path / 'a.warc.gz', some_records(1))))


def test_an_outage_is_no_damage(tmp_path, monkeypatch):
  path = write(tmp_path / 'a.warc.gz', some_records(20))
  opened = file_access.open_stored
  class Failing(io.BytesIO):
    def read(self, size=-1):
      if self.tell() > 1 << 16:
        raise Unavailable('the storage has not answered')
      return super().read(size)
  monkeypatch.setattr(file_access, 'open_stored', lambda path: Failing(opened(path).read()))
  with pytest.raises(Unavailable, match='has not answered'):
    everything(path)


def test_only_pages_are_documents(tmp_path):
  made = [*some_records(2), record(
    response(html('moved'), status='301 Moved Permanently'), 'http://example.org/moved'),
    record(response(html('gone'), status='404 Not Found'), 'http://example.org/gone'),
    record(response(html('again')), 'http://example.org/0', 'revisit'),
    record(response(b'%PDF-1.4', 'application/pdf'), 'http://example.org/pdf'),
    record(html('a resource'), 'http://example.org/resource', 'resource', Content_Type='text/html'),
    record(b'{}', 'urn:pageinfo:x', 'resource', Content_Type='application/json'),
    record(b'no response', 'http://example.org/raw'), record(b'', 'http://example.org/none')]
  pieces = read(f'warc:{write(tmp_path / "a.warc.gz", made)}')
  assert not problems(pieces)
  assert [piece.fields['url'] for piece in pieces] == [
    'http://example.org/0', 'http://example.org/1', 'http://example.org/resource']


def test_the_document_of_a_page(tmp_path):
  path = write(tmp_path / 'a.warc', [record(response(html(TEXT, title=' Two\n words &amp; more ')),
                                            '<http://example.org/a?b=1#c>')])
  piece, = read(f'warc:{path}')
  assert piece.text == f'Heading\n\n{TEXT}'
  assert piece.fields == {'url': 'http://example.org/a?b=1#c', 'title': 'Two words & more',
                          'date': '2017-05-06T07:08:09Z'}
  assert piece.location == f'{path}:byte 0:http://example.org/a?b=1#c'


BODY = html(TEXT)
ENCODED = {
  'plain': (BODY, {}), 'identity': (BODY, {'Content_Encoding': 'identity'}),
  'chunked': (chunked(BODY), {'Transfer_Encoding': 'chunked'}),
  'chunks with extensions': (b'5;a=b\r\n' + BODY[:5] + b'\r\n' + chunked(BODY[5:]),
                             {'Transfer_Encoding': 'Chunked'}),
  'chunks joined by the crawler': (BODY, {'Transfer_Encoding': 'chunked'}),
  'gzip': (gzip.compress(BODY, mtime=0), {'Content_Encoding': 'gzip'}),
  'x-gzip': (gzip.compress(BODY, mtime=0), {'content_encoding': 'X-GZIP'}),
  'decoded by the crawler': (BODY, {'Content_Encoding': 'gzip'}),
  'deflate': (zlib.compress(BODY), {'Content_Encoding': 'deflate'}),
  'raw deflate': (zlib.compress(BODY)[2:-4], {'Content_Encoding': 'deflate'}),
  'br': (brotli.compress(BODY), {'Content_Encoding': 'br'}),
  'br decoded': (BODY, {'Content_Encoding': 'br'}),
  'both': (chunked(gzip.compress(BODY, mtime=0)),
           {'Content_Encoding': 'gzip', 'Transfer_Encoding': 'chunked'}),
  'two': (gzip.compress(brotli.compress(BODY), mtime=0), {'Content_Encoding': 'br, gzip'}),
  'unknown, but decoded': (BODY, {'Content_Encoding': 'zstd'}),
}


@pytest.mark.parametrize('name', ENCODED)
def test_encodings_of_a_body(tmp_path, name):
  body, headers = ENCODED[name]
  assert only_text(tmp_path, response(body, **headers)) == f'Heading\n\n{TEXT}'


@pytest.mark.parametrize('body, headers, problem', [
  (gzip.compress(BODY, mtime=0)[:-30], {'Content_Encoding': 'gzip'}, 'cut short within a compressed page'),
  (brotli.compress(BODY)[:-9], {'Content_Encoding': 'br'}, 'cut short within a compressed page'),
  (chunked(BODY)[:-30], {'Transfer_Encoding': 'chunked'}, 'cut short within the chunks of a page'),
  (b'\xff' * 99, {'Content_Encoding': 'br'}, 'damaged: '),
  (b'\x1f\x8b' + b'\xff' * 99, {'Content_Encoding': 'gzip'}, 'damaged: '),
  (b'\0' * 99, {'Content_Encoding': 'zstd'}, "unknown encoding: 'zstd'"),
  (BODY, {'Content_Encoding': 'gzip, gzip, gzip, gzip'}, 'damaged: 4 encodings'),
  (gzip.compress(bytes(10**8), mtime=0), {'Content_Encoding': 'gzip'},
   'too long: a page of more than 4,194,304 bytes'),
  (brotli.compress(bytes(10**7), quality=1), {'Content_Encoding': 'br'}, 'too long: a page of more than'),
  (b' ' * 5_000_000, {}, 'too long: a page of more than'),
  (b'<div>' * 100_000 + b'x', {}, 'damaged: elements that are nested 512 deep'),
  (b'', {}, 'empty'), (b'<html></html>', {}, 'empty')])
def test_a_body_that_is_no_page_is_a_problem(tmp_path, body, headers, problem):
  assert only_text(tmp_path, response(body, **headers)).startswith(problem)


SAID = {'utf-8': 'naïve café 日本語', 'iso-8859-1': 'naïve café', 'windows-1251': 'Река была мелкой',
        'shift_jis': '川は浅かった', 'utf-16': 'naïve café', 'iso-2022-jp': '川は浅かった'}


@pytest.mark.parametrize('charset', SAID)
def test_the_charset_of_the_headers_or_of_the_page(tmp_path, charset):
  text = f'{SAID[charset]} {TEXT}'
  meta = html(text, charset=charset, head=f'<meta charset="{charset}">')
  body = html(text, charset=charset)
  assert only_text(tmp_path, response(body, f'text/html;charset="{charset}"')).endswith(text)
  if charset not in ('utf-16', 'iso-2022-jp'):  # which a page in ASCII cannot declare
    assert only_text(tmp_path, response(meta, 'text/html')).endswith(text)


@pytest.mark.parametrize('declared', ['iso-8859-1', 'windows-1252', 'no-such-charset', 'us-ascii', 'x' * 500])
def test_a_wrong_charset(tmp_path, declared):
  text = f'naïve café 日本語 {TEXT}'
  kind = f'text/html; charset={declared}'
  assert only_text(tmp_path, response(html(text), kind)).endswith(text)
  latin = f'naïve café {TEXT}'
  body = html(latin, charset='iso-8859-1')
  assert only_text(tmp_path, response(body, 'text/html; charset=utf-8')).endswith(latin)


def test_a_page_without_a_type_is_recognized(tmp_path):
  assert only_text(tmp_path, response(BODY, '')).endswith(TEXT)
  path = write(tmp_path / 'b.warc', [record(response(b'\x89PNG', '')), record(response(b'just text', ''))])
  assert extracted(path) == []


def test_only_the_pages_of_a_list(tmp_path):
  made = [page(f'{i} {TEXT}', url) for i, url in enumerate([
    'https://www.example.org/a/', 'http://example.org/b?utm_source=x&id=1', 'http://example.org/c',
    'http://EXAMPLE.org:80/d#top', 'http://other.example.org/a'])]
  path = write(tmp_path / 'a.warc.gz', [*made, record(gzip.compress(BODY, mtime=0)[:50], 'http://example.org/damaged')])
  (tmp_path / 'urls.txt').write_text(
    'http://example.org/a\nhttps://example.org/b?id=1\n\nhttp://www.example.org/d\n')
  urls = url_list.read([str(tmp_path / '*.txt')])
  assert [text.split()[1] for text in extracted(path, urls=urls)] == ['0', '1', '3']
  (tmp_path / 'urls.txt').write_text('http://example.org/c\nnot a URL\n')
  with pytest.raises(InputError, match=r"urls\.txt:2: 'not a URL' is not the URL of a web page"):
    url_list.read([str(tmp_path / 'urls.txt')])
  (tmp_path / 'keys-0.bin').write_bytes(b'123456789')
  with pytest.raises(InputError, match=r'keys-0\.bin has 9 bytes, which is not a list of keys'):
    url_list.read([str(tmp_path / 'keys-*.bin')])
  with pytest.raises(InputError, match='no file has this name'):
    url_list.read([str(tmp_path / 'none.txt')])
  (tmp_path / 'urls.txt').write_text(f'http://example.org/c\nhttp://example.org/#{url_list.MAX_LINE * "a"}')
  with pytest.raises(InputError, match=r'urls\.txt:2: .* is not the URL of a web page'):
    url_list.read([str(tmp_path / 'urls.txt')])
  (tmp_path / 'urls.txt.gz').write_bytes(gzip.compress(b'http://example.org/c\n' * 9, mtime=0)[:-5])
  with pytest.raises(InputError, match=r'urls\.txt\.gz: after line 9: .*cut short.*: copy it again'):
    url_list.read([str(tmp_path / 'urls.txt.gz')])


def test_another_process_notices_that_the_list_has_changed(tmp_path, monkeypatch):
  path = tmp_path / 'urls.txt'
  path.write_text('http://example.org/a\n')
  urls = url_list.read([str(path)])
  monkeypatch.setattr(url_list, '_known', {})
  assert urls.has('http://example.org/a') and not urls.has('http://example.org/b')
  path.write_text('http://example.org/b\n')
  url_list._known.clear()
  with pytest.raises(InputError, match='has changed meanwhile'):
    urls.has('http://example.org/a')


def test_the_missing_extra_is_named(tmp_path):
  path = write(tmp_path / 'a.warc', some_records(1))
  code = ('import sys; sys.modules["resiliparse"] = None\n'
          f'from gptjax.data.sources import documents; documents.units(["warc:{path}"], "")')
  done = subprocess.run([sys.executable, '-c', code], env=ENVIRONMENT, capture_output=True, text=True)
  assert "warc: needs libraries for web pages: pip install 'gptjax[webtext]'" in done.stderr


def test_a_panic_of_the_extractor_is_a_problem_of_its_page(tmp_path, monkeypatch):
  from gptjax.data.sources.warc import html as extractor
  class PanicException(BaseException):
    __module__ = 'pyo3_runtime'
  def panic(tree, **options):
    raise PanicException('index out of range')
  monkeypatch.setattr(extractor, 'extract_plain_text', panic)
  assert only_text(tmp_path, response(BODY)) == 'the extractor fails: index out of range'
  monkeypatch.setattr(extractor, 'extract_plain_text', lambda tree, **options: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    only_text(tmp_path, response(BODY))


def test_random_bytes_in_a_page_are_never_more_than_a_problem(tmp_path):
  rng, kinds = random.Random(0), collections.Counter()
  for _ in range(200):
    body = bytearray(html(PROSE * 3, charset=rng.choice(['utf-8', 'utf-16', 'shift_jis'])))
    for _ in range(rng.randint(1, 40)):
      at = rng.randrange(len(body))
      body[at:at + rng.randint(0, 5)] = rng.choice(
        [rng.randbytes(3), b'<table>', b'<', b'"', b'&#0;', b'</', b'<svg>'])
    found = only_text(tmp_path, response(bytes(body), rng.choice(['text/html', 'text/html; charset=utf-8'])))
    kinds[found[:5]] += 1
    found.encode()
  assert kinds
