"""Inputs that were misread: archives, other encodings, dotted fields, sound files called damaged."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pyarrow
import pyarrow.ipc
import pytest
from pyarrow import parquet
from source_files import COMPRESSED, TEXTS, compress, jsonl, problems, read, texts

from gptjax.data.sources import fields, files
from gptjax.data.sources import tar as tar_source
from gptjax.errors import InputError

RECORDS = [
  {'meta': {'text': 'one', 'url': 'http://a.example/', 'n': 1}},
  {'meta': {'text': 'two', 'url': None, 'n': 2}}]


def test_dotted_fields(tmp_path):
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in RECORDS))
  parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / 'a.parquet')
  for kind in ('jsonl', 'parquet'):
    found = read(f'{kind}:{tmp_path}/a.{kind}:meta.text')
    assert texts(found) == ['one', 'two']
    assert [piece.fields for piece in found] == [{'url': 'http://a.example/'}, {}]
    (_, problem), *_ = problems(read(f'{kind}:{tmp_path}/a.{kind}:meta.words'))
    assert problem.startswith("no such field: 'meta.words'")
  (_, problem), *_ = problems(read(f'parquet:{tmp_path}/a.parquet:meta.words'))
  assert problem.endswith('there are meta, meta.n, meta.text, meta.url') or 'meta.url' in problem


NESTED = [{'domain': 'top', 'meta': None, 'a': {'title': 'no', 'b': {
            'text': 'one', 'url': 'http://a.example/', 'domain': 'a'}}},
          {'a': {'b': {'text': 'two', 'url': None}}, 'meta': {'url': 'http://b.example/'}}]


@pytest.mark.parametrize('kind', ['jsonl', 'parquet', 'arrow'])
def test_the_origin_beside_a_dotted_text(tmp_path, kind):
  """Under the prefix of the text too, after those under which it is looked up for any text."""
  path = tmp_path / 'a.zst'
  if kind == 'jsonl':
    path.write_bytes(compress(''.join(json.dumps(record) + '\n' for record in NESTED).encode(), '.zst'))
  elif kind == 'parquet':
    path = tmp_path / 'a'
    parquet.write_table(pyarrow.Table.from_pylist(NESTED), path)
  else:
    made, table = io.BytesIO(), pyarrow.Table.from_pylist(NESTED)
    with pyarrow.ipc.new_stream(made, table.schema) as writer:
      writer.write_table(table)
    path.write_bytes(compress(made.getvalue(), '.zst'))
  found = read(f'{kind}:{path}:a.b.text')
  assert texts(found) == ['one', 'two']
  assert [piece.fields for piece in found] == [
    {'url': 'http://a.example/', 'domain': 'top'}, {'url': 'http://b.example/'}]


@pytest.mark.parametrize('record, origin', [
  ({'url': 'u', 'meta': {'url': 'v', 'title': 'T'}}, {'url': 'u', 'title': 'T'}),
  ({'metadata': {'domain': 'd'}, 'meta': 'text'}, {'domain': 'd'}),
  ({'meta.url': 'u', 'meta': {'url': 'v'}}, {'url': 'u'}), ({'meta': {'url': 3}, 'url': None}, {}),
  ({'meta': None, 'metadata': ['url']}, {})])
def test_where_the_origin_of_a_record_may_be(record, origin):
  assert fields.origin_fields(record) == origin


def tar(path, members, suffix=''):
  with io.BytesIO() as made:
    with tarfile.open(fileobj=made, mode='w') as archive:
      for name, data in members:
        info = tarfile.TarInfo(name)
        if isinstance(data, bytes):
          info.size = len(data)
          archive.addfile(info, io.BytesIO(data))
        else:
          info.type, info.linkname = data
          archive.addfile(info)
    path.write_bytes(compress(made.getvalue(), suffix))


@pytest.mark.parametrize('suffix', ['.tar', '.tgz', '.tbz2', '.txz', '.tzst',
                                    *(f'.tar{one}' for one in COMPRESSED)])
def test_tar(tmp_path, suffix):
  long = 'd/' * 90 + 'long.txt'
  tar(tmp_path / f'a{suffix}', [
    ('folder', (tarfile.DIRTYPE, '')), ('folder/one.txt', b'\xef\xbb\xbfone\n'),
    ('link', (tarfile.SYMTYPE, '/etc/passwd')),
    ('hard', (tarfile.LNKTYPE, 'folder/one.txt')), ('../../two\x1b[31m.txt', b'two'), ('empty.txt', b''),
    (long, 'drei \u00e4'.encode()), ('nul', b'a\0b'), ('latin', b'\xe4'), ('inner.gz', gzip.compress(b'x')),
    ('pipe', (tarfile.FIFOTYPE, '')), ('last', b'four')], suffix.removeprefix('.tar'))
  spec = f'tar:{tmp_path}/a.*'
  found = read(spec)
  assert [piece.text for piece in found if not piece.problem] == ['one\n', 'two', 'drei \u00e4', 'four']
  assert [(location.rpartition(':')[2], problem.partition(':')[0])
          for location, problem in problems(found)] == [
    ('empty.txt', 'empty'), ('nul', 'not text, it has NUL bytes'), ('latin', 'not UTF-8'),
    ('inner.gz', 'not text, gzip data')]
  assert '\x1b' not in ''.join(piece.location for piece in found)
  assert not list(tmp_path.parent.glob('two*')) and len(list(tmp_path.iterdir())) == 1
  split = read(spec, 'n')
  assert [piece.text for piece in split if not piece.problem][:2] == ['o', 'e\n']
  (_, problem), = problems(read(f'text:{tmp_path}/a{suffix}'))
  assert problem == 'not text, a tar archive: read it by tar:'


def test_a_tar_archive_that_lies_of_its_sizes(tmp_path, monkeypatch):
  tar(tmp_path / 'a.tar', [('a', b'good'), ('b', b'x' * 2000), ('c', b'y' * 900)])
  whole = (tmp_path / 'a.tar').read_bytes()
  for cut in (1000, 1600, 2700):
    (tmp_path / 'cut.tar').write_bytes(whole[:cut])
    assert problems(read(f'tar:{tmp_path}/cut.tar'))[-1][1].startswith('damaged or cut short'), cut
  (tmp_path / 'not.tar').write_bytes(b'not an archive' * 100)
  assert problems(read(f'tar:{tmp_path}/not.tar'))[0][1].startswith('damaged or cut short')
  info = tarfile.TarInfo('sparse')
  info.pax_headers = {'GNU.sparse.map': 'a,b'}  # tarfile raises a plain ValueError
  (tmp_path / 'pax.tar').write_bytes(info.create_pax_header(info.get_info(), 'utf-8') + whole)
  assert problems(read(f'tar:{tmp_path}/pax.tar'))[-1][1].startswith('damaged or cut short')
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 1000)
  found = read(f'tar:{tmp_path}/a.tar')
  assert [piece.text[:4] for piece in found] == ['good', '', 'yyyy']
  assert problems(found)[0][1] == 'too long: a file of more than 1,000 bytes'
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 10**6)
  monkeypatch.setattr(tar_source, 'MAX_HEADERS', 20_000)
  info = tarfile.TarInfo('x' * 60_000)
  header = info.create_pax_header(info.get_info(), 'utf-8')
  (tmp_path / 'big.tar').write_bytes(whole[:1024] + header + whole[1024:])
  found = read(f'tar:{tmp_path}/big.tar')
  assert found[0].text == 'good'
  assert found[-1].problem.startswith('damaged or cut short: headers of more than')


MARK = b'\xef\xbb\xbf'


@pytest.mark.parametrize('suffix', ['', *COMPRESSED])
def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path, suffix):
  (tmp_path / f'a.txt{suffix}').write_bytes(compress(MARK + b'one--two', suffix))
  (tmp_path / f'a.jsonl{suffix}').write_bytes(compress(MARK + jsonl(), suffix))
  assert texts(read(f'text:{tmp_path}/a.txt{suffix}')) == ['one--two']
  assert texts(read(f'text:{tmp_path}/a.txt{suffix}', '--')) == ['one', 'two']
  assert texts(read(f'jsonl:{tmp_path}/a.jsonl{suffix}')) == TEXTS
  digest, = {piece.digest for piece in read(f'text:{tmp_path}/a.txt{suffix}')}
  assert digest == files.bytes_digest(b'one--two')


def table(*values):
  """The bytes of a Parquet file."""
  made = pyarrow.BufferOutputStream()
  parquet.write_table(pyarrow.table({'text': pyarrow.array(values, pyarrow.string())}), made)
  return made.getvalue().to_pybytes()


def archive(layout):
  """The bytes of a tar archive in one of the layouts that tarfile writes."""
  with io.BytesIO() as made:
    with tarfile.open(fileobj=made, mode='w', format=layout) as file:
      file.addfile(tarfile.TarInfo('a'))
    return made.getvalue()


@pytest.mark.parametrize('data, says', [
  ('text'.encode('utf-16'), 'UTF-16'), ('text'.encode('utf-32'), 'UTF-32'),
  (gzip.compress(b'x', mtime=0), 'gzip data'),
  ('\ufefftext'.encode('utf-16-be'), 'UTF-16'), (pyarrow.compress(b'x', 'zstd', asbytes=True), 'zstd data'),
  (bz2.compress(b'x'), 'bzip2 data'), (bz2.compress(b''), 'bzip2 data'), (lzma.compress(b'x'), 'xz data'),
  (b'PK\3\4...', 'a zip archive'), (b'%PDF-1.5', 'a PDF file'),
  (b'ARROW1\0\0', 'an Arrow file'), (table('a', 'b'), 'a Parquet file'), (table(), 'a Parquet file'),
  *((archive(layout), 'a tar archive') for layout in (
    tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
  ('text'.encode('utf-16-le'), 'NUL bytes: the first one at byte 1 '),
  (b'one\ntwo\0', 'NUL bytes: the first one at byte 7 '),
  (MARK + b'a\0', 'NUL bytes: the first one at byte 4 ')])
def test_what_is_not_text_is_named(tmp_path, data, says):
  (tmp_path / 'a').write_bytes(data)
  for separator in ('', '--'):
    (location, problem), = problems(read(f'text:{tmp_path}/a', separator))
    assert problem.startswith('not text, ') and says in problem and location.startswith(f'{tmp_path}/a:')
  if 'NUL' not in says:
    assert says in problems(read(f'jsonl:{tmp_path}/a'))[0][1]
  else:
    assert 'NUL bytes' in problems(read(f'jsonl:{tmp_path}/a'))[-1][1]


@pytest.mark.parametrize('text', [
  'BZh is how a bzip2 file begins', 'BZh9 1AY', 'PAR1', 'PAR1 is how a Parquet file begins', '%PDF-',
  '%PDF-x.y', '%PDF-1 and so on', 'x' * 257 + 'ustar is how a tar header goes on', 'PK', '(', 'ustar'])
def test_a_text_may_begin_with_the_letters_of_a_format(tmp_path, text):
  (tmp_path / 'a').write_text(text)
  assert texts(read(f'text:{tmp_path}/a')) == [text]


def test_rows_of_parquet_that_cannot_be_read_are_named(tmp_path):
  """Text that is not UTF-8, a time that Python has not, an origin that is no text."""
  odd = pyarrow.array([b'a', b'\xff'], pyarrow.binary()).view(pyarrow.string())
  time = pyarrow.array([10**18 + 1] * 2, pyarrow.timestamp('ns'))
  made = {'a': {'text': odd}, 'b': {'text': ['a', 'b'], 'url': time}, 'c': {'text': time},
          'd': {'text': ['a', 'b'], 'url': odd}}
  for name, columns in made.items():
    parquet.write_table(pyarrow.table(columns), tmp_path / f'{name}.parquet')
  of = {name: read(f'parquet:{tmp_path}/{name}.parquet') for name in made}
  assert [piece.text for piece in of['a']] == ['a', ''] and of['a'][1].problem.startswith('not UTF-8')
  assert texts(of['b']) == texts(of['d']) == ['a', 'b']
  assert [piece.problem.partition(':')[0] for piece in of['c']] == ['not text'], 'said once, of the column'


def test_sound_files_that_cannot_be_read_are_never_skipped_as_damaged(tmp_path):
  """A zstd frame of one raw block that asks for a window of 2 GiB; Parquet in gzip."""
  text = jsonl()
  frame = b'\x28\xb5\x2f\xfd\x00\xa8' + (1 | len(text) << 3).to_bytes(3, 'little') + text
  (tmp_path / 'a.jsonl.zst').write_bytes(frame)
  with pytest.raises(InputError, match=r'window of more than 128 MiB.*without --long'):
    read(f'jsonl:{tmp_path}/a.jsonl.zst')
  parquet.write_table(pyarrow.table({'text': TEXTS}), tmp_path / 'a.parquet')
  for suffix in COMPRESSED:
    (tmp_path / f'a.parquet{suffix}').write_bytes(compress((tmp_path / 'a.parquet').read_bytes(), suffix))
    with pytest.raises(InputError, match='is compressed Parquet'):
      read(f'parquet:{tmp_path}/a.parquet{suffix}')


@pytest.mark.parametrize('error', [
  pyarrow.ArrowNotImplementedError('Nested data conversions\nnot for chunked arrays'),
  OSError('LZO compression is currently not supported by the C++ implementation'),
  OSError('cannot read encrypted metadata')])
def test_what_arrow_cannot_read_is_refused_and_not_left_out(tmp_path, monkeypatch, error):
  def fail(*arguments, **options):
    raise error
  parquet.write_table(pyarrow.table({'text': TEXTS}), tmp_path / 'a.parquet')
  monkeypatch.setattr(parquet.ParquetFile, 'iter_batches', fail)
  with pytest.raises(InputError, match=r'a\.parquet is not supported: [^\n]*$'):
    read(f'parquet:{tmp_path}/a.parquet')
  monkeypatch.undo()
  content = bytearray((tmp_path / 'a.parquet').read_bytes())
  content[content.rindex(b'text\x15') + 5] = 6  # the number of LZO
  (tmp_path / 'a.parquet').write_bytes(content)
  with pytest.raises(InputError, match='LZO'):
    read(f'parquet:{tmp_path}/a.parquet')


def test_a_blank_origin_at_the_top_does_not_hide_the_one_in_meta():
  assert fields.origin_fields({'url': ' ', 'meta': {'url': 'https://a.example/'}}) == {'url': 'https://a.example/'}


@pytest.mark.parametrize('cut', range(1, 5 * 512, 211))
def test_a_tar_archive_that_is_cut_anywhere_is_damaged(tmp_path, cut):
  content = io.BytesIO()
  with tarfile.open(fileobj=content, mode='w') as archive:
    for name in ('a', 'b', 'c'):
      member = tarfile.TarInfo(name)
      member.size = 5
      archive.addfile(member, io.BytesIO(b'words'))
  path = tmp_path / 'a.tar'
  path.write_bytes(content.getvalue())
  assert [piece.text for piece in read(f'tar:{path}')] == ['words'] * 3
  for size in (cut, (cut // 512 + 1) * 512):  # also between two blocks
    path.write_bytes(content.getvalue()[:size])
    *whole, last = read(f'tar:{path}')
    assert [piece.text for piece in whole] == ['words'] * (max(0, size - 517 + 1024) // 1024)
    assert last.problem.startswith('damaged or cut short')


@pytest.mark.parametrize('content, problem', [
  ('["a"]', 'not an object: a JSON array, which has no fields'), ('3', 'not an object: a JSON number'),
  ('"a"', 'not an object: a JSON string'), ('null', 'not an object: a JSON null'),
  ('true', 'not an object: a JSON boolean'), ('{"b": 1}', "no such field: 'text' is not in ['b']"),
  ('[\n {"text": "a"}\n]', 'the first of several lines: write each object in one line'),
  ('{\n "text": "a"\n}', 'the first of several lines')])
def test_lines_that_are_no_records_are_named(tmp_path, content, problem):
  (tmp_path / 'a.jsonl').write_text(content)
  assert problem in read(f'jsonl:{tmp_path}/a.jsonl')[0].problem
