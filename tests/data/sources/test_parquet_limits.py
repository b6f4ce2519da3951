"""Parquet files that decompress to many times their size: memory stays bounded, and rows stay in order."""

import json
import random

import pyarrow
import pytest
from pyarrow import parquet
from source_files import problems, read, texts

from gptjax.data.sources import file_access, files
from gptjax.data.sources.columns import parquet as parquet_source
from gptjax.data.sources.columns import parquet_pages, rows


@pytest.fixture
def small(monkeypatch):
  """Limits that small files reach: bytes of a document, and of pages."""
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 1000)
  monkeypatch.setattr(rows, 'MAX_ORIGIN', 100)
  monkeypatch.setattr(parquet_source, 'SMALL_PAGE', 3000)
  monkeypatch.setattr(parquet_source, 'MAX_PAGE', 20_000)


def write(path, table, **options):
  parquet.write_table(table, path, **{'compression': 'zstd', **options})
  return f'parquet:{path}'


def dictionary(values):
  return pyarrow.array(values).dictionary_encode()


@pytest.mark.parametrize('kind', [
  pyarrow.array, dictionary, lambda values: pyarrow.array(values, pyarrow.large_string()),
  lambda values: pyarrow.array([value.encode() for value in values]),
  lambda values: dictionary(values).cast(pyarrow.dictionary(pyarrow.int8(), pyarrow.large_string()))])
@pytest.mark.parametrize('encoded', [False, True])
def test_a_value_that_is_too_long_never_becomes_text(tmp_path, small, kind, encoded):
  values = ['short', 'x' * 1001, 'é' * 501, 'y' * 1000, 'x' * 1001]
  table = pyarrow.table({'text': kind(values), 'url': ['u', 'u' * 101, 'http://a', '', 'v']})
  found = read(write(tmp_path / 'a.parquet', table, use_dictionary=encoded))
  assert [piece.text for piece in found] == ['short', '', '', 'y' * 1000, '']
  assert problems(found) == [(f'{tmp_path}/a.parquet:{row}', 'too long: a document of more than 1,000 bytes')
                             for row in (2, 3, 5)]
  assert found[0].fields == {'url': 'u'} and found[3].fields == {}


def test_a_page_that_unpacks_to_too_much_is_refused_before_it_is(tmp_path, small):
  source = write(tmp_path / 'a.parquet', pyarrow.table({'text': ['x' * 900] * 100}), use_dictionary=False)
  assert (tmp_path / 'a.parquet').stat().st_size < 5000
  ((place, problem),) = problems(read(source))
  assert place.endswith('a.parquet:1')
  assert problem.startswith('too long: its page in the file decompresses to 90,')
  # Written as it says, it can be read.
  source = write(tmp_path / 'a.parquet', pyarrow.table({'text': ['x' * 900] * 100}), row_group_size=10)
  assert texts(read(source)) == ['x' * 900] * 100


def test_one_value_in_many_rows_takes_the_memory_of_one(tmp_path):
  """64 rows of 4 MB in a kilobyte: 16 at a time would be 64 MB."""
  source = write(tmp_path / 'a.parquet', pyarrow.table({'text': dictionary(['x ' * (1 << 21)] * 64)}))
  assert (tmp_path / 'a.parquet').stat().st_size < 3000
  limit = pyarrow.total_allocated_bytes() + (40 << 20)
  n_rows = 0
  for piece in parquet_source.pieces(source.removeprefix('parquet:'), 'text'):
    n_rows += piece.start == 0
    assert not piece.problem and pyarrow.total_allocated_bytes() < limit
  assert n_rows == 64


@pytest.mark.parametrize('options', [
  {}, {'use_dictionary': False}, {'compression': 'none'}, {'compression': 'gzip', 'data_page_version': '2.0'},
  {'compression': 'snappy', 'write_statistics': False}, {'write_page_checksum': True}])
def test_rows_are_all_there_in_order_whatever_their_pages(tmp_path, small, options):
  draw = random.Random(0)
  rows = [''.join(draw.choices('abc \n', k=draw.choice((1, 10, 100, 950)))) + 'd' for _ in range(300)]
  meta = [{'text': row, 'url': f'u{i}'} if i % 7 else None for i, row in enumerate(rows)]
  table = pyarrow.table({'text': rows, 'n': list(range(300)), 'meta': meta})
  source = write(tmp_path / 'a.parquet', table, row_group_size=100, data_page_size=1000, write_batch_size=4,
                 dictionary_pagesize_limit=2000, **options)
  assert texts(read(source)) == rows
  found = read(f'{source}:meta.text')
  assert [piece.text for piece in found] == [row if i % 7 else '' for i, row in enumerate(rows)]
  assert all(piece.problem == 'empty' for piece in found[::7])
  assert found[1].fields == {'url': 'u1'}


@pytest.mark.parametrize('options', [{}, {'compression': 'none', 'data_page_version': '2.0'},
                                     {'use_dictionary': False, 'write_page_checksum': True}])
def test_each_page_is_seen(tmp_path, options):
  source = write(tmp_path / 'a.parquet', pyarrow.table({'text': [f'{i} ' * 300 for i in range(500)]}),
                 data_page_size=5000, **options)
  with file_access.open_bytes(source.removeprefix('parquet:')) as raw:
    watched = parquet_pages.PageCheckedFile(raw, 1 << 20)
    file = parquet.ParquetFile(watched, pre_buffer=False, buffer_size=1000)
    watched.watch(file.metadata.row_group(0), [0])
    ((start, stop),) = watched._chunks
    assert start < stop and sum(batch.num_rows for batch in file.iter_batches(batch_size=7)) == 500
    assert watched._chunks == [[stop, stop]]


@pytest.mark.parametrize('column', [
  pyarrow.array([['a', 'b'], ['c']]), pyarrow.array([{'deep': 'a'}, {'deep': 'b'}]), pyarrow.array([1, 2]),
  pyarrow.array([[('a', 'b')], []], pyarrow.map_(pyarrow.string(), pyarrow.string()))])
def test_what_is_no_text_is_not_read(tmp_path, column):
  found = problems(read(write(tmp_path / 'a.parquet', pyarrow.table({'text': column}))))
  assert len(found) == 1 and found[0][1].startswith("not text: 'text' is a ")


def test_text_that_is_not_unicode_is_a_problem_of_its_row(tmp_path):
  bad = pyarrow.array([b'good', b'\xff\xfe', b'fine']).view(pyarrow.string())
  found = read(write(tmp_path / 'a.parquet', pyarrow.table({'text': bad})))
  assert [piece.text for piece in found] == ['good', '', 'fine']
  assert found[1].problem.startswith('not UTF-8')


def test_damage_anywhere_is_a_problem_and_no_error(tmp_path):
  source = write(tmp_path / 'a.parquet', pyarrow.table({'text': [json.dumps([i] * 20) for i in range(40)]}))
  path, draw = tmp_path / 'a.parquet', random.Random(1)
  whole = path.read_bytes()
  for _ in range(150):
    data = bytearray(whole)
    for _ in range(draw.choice((1, 3))):
      data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)
    for piece in read(source):
      assert piece.problem or piece.text
