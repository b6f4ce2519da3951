"""Arrow files: the rows that were put in, whatever their layout; damage and large batches are problems."""

import io
import itertools
import random
import struct

import fsspec
import hypothesis
import pyarrow
import pytest
from hypothesis import strategies as st
from pyarrow import ipc
from source_files import COMPRESSED, TEXTS, compress, problems, read, texts

from gptjax.data.sources import files
from gptjax.data.sources.columns import arrow, arrow_messages, rows
from gptjax.errors import InputError

LAYOUTS = list(itertools.product((ipc.new_stream, ipc.new_file), (None, 'zstd', 'lz4')))


def write(path, table, rows=1000, new=ipc.new_stream, compression=None, **options):
  """Write a table in record batches of `rows` rows; the options are those of Arrow."""
  content = io.BytesIO()
  with new(content, table.schema, options=ipc.IpcWriteOptions(compression=compression, **options)) as writer:
    writer.write_table(table, max_chunksize=rows)
  path.write_bytes(content.getvalue())
  return f'arrow:{path}'


def dictionary(values):
  return pyarrow.array(values, pyarrow.string()).dictionary_encode()


KINDS = [lambda values: pyarrow.array(values, pyarrow.string()), dictionary,
         lambda values: pyarrow.array(values, pyarrow.large_string()),
         lambda values: pyarrow.array(values, pyarrow.string_view()),
         lambda values: pyarrow.array([value and value.encode() for value in values], pyarrow.binary()),
         lambda values: dictionary(values).cast(pyarrow.dictionary(pyarrow.int8(), pyarrow.large_string()))]


@pytest.mark.parametrize('new, compression', LAYOUTS)
@pytest.mark.parametrize('kind', KINDS)
def test_all_rows_in_order_with_their_origin(tmp_path, kind, new, compression):
  values = [f'{i} é' * (i % 5 + 1) for i in range(50)]
  urls = [f'http://{i}.example/' if i % 3 else None for i in range(50)]
  table = pyarrow.table({'n': range(50), 'text': kind(values), 'list': [[1, 2]] * 50, 'url': kind(urls)})
  found = read(write(tmp_path / 'a.arrow', table, 7, new, compression))
  assert texts(found) == values
  assert [piece.fields.get('url') for piece in found] == urls
  assert found[8].location == f'{tmp_path}/a.arrow:9'


@hypothesis.given(st.lists(st.none() | st.text(max_size=20), max_size=30), st.integers(1, 9),
                  st.sampled_from(LAYOUTS), st.sampled_from(range(5)), st.integers(0, 5))
@hypothesis.settings(deadline=None, max_examples=100)
def test_what_pyarrow_writes_is_read(tmp_path_factory, values, size, layout, kind, first):
  """The judge is pyarrow; the rows are also those of a slice, whose buffers do not begin at its first row."""
  path = tmp_path_factory.mktemp('arrow') / 'a.arrow'
  new, compression = layout
  meta = pyarrow.array([{'text': value, 'n': 1} for value in values],
                       pyarrow.struct({'text': pyarrow.string(), 'n': pyarrow.int64()}))
  table = pyarrow.table({'text': KINDS[kind](values), 'meta': meta}).slice(first)
  source = write(path, table, size, new, compression)
  for name in ('text', 'meta.text'):
    for piece, value in zip(read(f'{source}:{name}'), values[first:], strict=True):
      good = value is not None and value.strip()
      assert piece.text == value if good else piece.problem == 'empty'


@pytest.mark.parametrize('suffix', COMPRESSED)
def test_compressed_files(tmp_path, suffix):
  write(tmp_path / 'a.arrow', pyarrow.table({'text': TEXTS}))
  (tmp_path / f'b.arrow{suffix}').write_bytes(compress((tmp_path / 'a.arrow').read_bytes(), suffix))
  assert texts(read(f'arrow:{tmp_path}/b.arrow{suffix}')) == TEXTS
  (tmp_path / f'c.arrow{suffix}').write_bytes((tmp_path / f'b.arrow{suffix}').read_bytes()[:-5])
  assert problems(read(f'arrow:{tmp_path}/c.arrow{suffix}'))[-1][1].startswith('damaged or cut short')


def test_files_elsewhere(tmp_path):
  write(tmp_path / 'a.arrow', pyarrow.table({'body': TEXTS}))
  fsspec.filesystem('memory').pipe_file('/arrow/a.arrow', (tmp_path / 'a.arrow').read_bytes())
  assert texts(read('arrow:memory://arrow/*.arrow:body')) == TEXTS


RECORD = {'a': {'b': {'text': 'one', 'url': 'http://a.example/', 'n': 1}, 'domain': 'not here'}, 'title': 'T'}


def test_dotted_fields_and_the_origin_beside_them(tmp_path):
  source = write(tmp_path / 'a.arrow', pyarrow.Table.from_pylist([RECORD, {'a': {'b': None}}, {'a': None}]))
  found = read(f'{source}:a.b.text')
  assert found[0].text == 'one' and found[0].fields == {'url': 'http://a.example/', 'title': 'T'}
  assert [piece.problem for piece in found[1:]] == ['empty', 'empty']
  for name, says in (('a.b', "not text: 'a.b' is a structure, with a.b."), ('a.b.n', 'is a column of int64'),
                     ('text', "no such field: 'text' is not a column, there are a.b.")):
    (location, problem), = problems(read(f'{source}:{name}'))
    assert says in problem and location.endswith('a.arrow:1')
  source = write(tmp_path / 'b.arrow', pyarrow.table({'url': ['x' * 100_000, 'u'], 'a.text': ['b', 'c']}))
  assert texts(read(f'{source}:url')) == ['x' * 100_000, 'u'], 'a text is not limited as an origin is'
  assert texts(read(f'{source}:a.text')) == ['b', 'c'], 'a name may have dots'


def test_dirty_rows(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 1000)
  monkeypatch.setattr(rows, 'MAX_ORIGIN', 100)
  values = [b'good', None, b'', b' \n', b'\xff\xfe', b'a\0b', b'x' * 1001, 'é'.encode() * 500, b'last']
  expected = ['', 'empty', 'empty', 'empty', 'not UTF-8', '', 'too long', '', '']
  urls = ['u' * 101, None, 'v'] * 3
  for kind in (lambda array: array.view(pyarrow.string()), lambda array: array,
               lambda array: array.dictionary_encode()):
    table = pyarrow.table({'text': kind(pyarrow.array(values, pyarrow.binary())), 'url': urls})
    found = read(write(tmp_path / 'a.arrow', table))
    assert [piece.problem.partition(':')[0] for piece in found] == expected
    assert [piece.text for piece in found if not piece.problem] == ['good', 'a\0b', 'é' * 500, 'last']
    assert found[0].fields == {} and found[5].fields == {'url': 'v'}


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('new, compression', LAYOUTS)
def test_every_cut_is_a_problem_after_the_rows_before_it(tmp_path, new, compression):
  write(tmp_path / 'a.arrow', pyarrow.table({'text': [str(i) for i in range(40)]}), 10, new, compression)
  whole = (tmp_path / 'a.arrow').read_bytes()
  for size in range(len(whole)):
    (tmp_path / 'a.arrow').write_bytes(whole[:size])
    *found, last = read(f'arrow:{tmp_path}/a.arrow')
    assert last.problem.startswith('damaged or cut short: '), size
    assert texts(found) == [str(i) for i in range(len(found))] and len(found) % 10 == 0
    assert last.location == f'{tmp_path}/a.arrow:{len(found) + 1}'


def test_what_follows_a_stream_is_not_left_out_in_silence(tmp_path):
  source = write(tmp_path / 'a.arrow', pyarrow.table({'text': TEXTS}))
  (tmp_path / 'a.arrow').write_bytes((tmp_path / 'a.arrow').read_bytes() * 2)
  *found, last = read(source)
  assert 'bytes follow the mark of its end' in last.problem and len(found) <= len(TEXTS)


@pytest.mark.parametrize('new, compression', LAYOUTS)
def test_damage_anywhere_is_a_problem_and_no_error(tmp_path, new, compression):
  table = pyarrow.table({'text': [f'{i} ' * 20 for i in range(40)], 'dictionary': dictionary(['a', 'b'] * 20),
                         'meta': [{'url': f'http://{i}.example/'} for i in range(40)]})
  write(tmp_path / 'a.arrow', table, 15, new, compression)
  whole, draw = (tmp_path / 'a.arrow').read_bytes(), random.Random(1)
  for _ in range(150):
    data = bytearray(whole)
    for _ in range(draw.choice((1, 3))):
      at = draw.randrange(len(data))
      other = bytes([draw.randrange(256)]) + data[at + 1:at + 4]
      data[at:at + 4] = draw.choice((b'\xff\xff\xff\x7f', b'\0' * 4, other))
    (tmp_path / 'a.arrow').write_bytes(data)
    for name in ('text', 'dictionary', 'meta.url'):
      try:
        assert all(piece.problem or piece.text for piece in read(f'arrow:{tmp_path}/a.arrow:{name}'))
      except InputError as error:
        assert 'is not supported' in str(error)


@pytest.mark.parametrize('compression', [None, 'zstd', 'lz4'])
def test_a_large_batch_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, compression):
  monkeypatch.setattr(arrow, 'MAX_BATCH', 50_000)
  table = pyarrow.table({'text': ['x' * 900] * 100, 'other': dictionary(['y'] * 100)})
  *found, last = read(write(tmp_path / 'a.arrow', table, compression=compression))
  assert not found and last.problem.startswith('too long: its record batch has 9')
  assert last.location.endswith(':1')
  assert texts(read(write(tmp_path / 'a.arrow', table, 20, compression=compression))) == ['x' * 900] * 100
  table = pyarrow.table({'text': dictionary([f'{i}' * 900 for i in range(100)])})
  (_, problem), = problems(read(write(tmp_path / 'a.arrow', table, 20, compression=compression)))
  assert problem.startswith('too long: its record batch has')


def test_dictionaries_that_grow_are_limited_together(tmp_path, monkeypatch):
  """Replaced ones count once, and those that are added to count as a whole."""
  monkeypatch.setattr(arrow, 'MAX_BATCH', 50_000)
  words = [f'{i:03}' * 300 for i in range(100)]
  batch = lambda stop: pyarrow.record_batch({'text': pyarrow.DictionaryArray.from_arrays(
    pyarrow.array([stop - 1], pyarrow.int32()), words[:stop])})
  for deltas in (False, True):
    content = io.BytesIO()
    with ipc.new_stream(content, batch(1).schema,
                        options=ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)) as writer:
      for stop in range(5, 101, 5):
        writer.write_batch(batch(stop))
    (tmp_path / 'a.arrow').write_bytes(content.getvalue())
    *found, last = read(f'arrow:{tmp_path}/a.arrow')
    assert last.problem.startswith('too long: its record batch has 5'), deltas
    assert texts(found) == words[4:5 * len(found):5] and len(found) >= 10


def test_a_body_that_is_said_to_be_huge_takes_no_memory(tmp_path):
  write(tmp_path / 'a.arrow', pyarrow.table({'text': TEXTS}))
  data, seen = (tmp_path / 'a.arrow').read_bytes(), 0
  _, batch = ipc.MessageReader.open_stream(data)
  for at in range(len(data) - 8):
    if data[at:at + 8] == struct.pack('<q', batch.body.size):
      (tmp_path / 'a.arrow').write_bytes(data[:at] + struct.pack('<q', 1 << 50) + data[at + 8:])
      found = read(f'arrow:{tmp_path}/a.arrow')
      seen += 'its record batch has 1,125,899,906,842,624 bytes' in found[0].problem
  assert seen == 1


def test_one_value_in_many_rows_takes_the_memory_of_one(tmp_path):
  table = pyarrow.table({'text': dictionary(['x ' * (1 << 21)] * 64)})
  source = write(tmp_path / 'a.arrow', table, compression='zstd')
  del table
  limit, n_rows = pyarrow.total_allocated_bytes() + (20 << 20), 0
  for piece in arrow.pieces(source.removeprefix('arrow:'), 'text'):
    n_rows += piece.start == 0
    assert not piece.problem and pyarrow.total_allocated_bytes() < limit
  assert n_rows == 64


def test_one_batch_is_in_memory_at_a_time(tmp_path):
  table = pyarrow.table({'text': ['x' * (1 << 20)] * 64})
  source = write(tmp_path / 'a.arrow', table, 4, compression='zstd')
  del table
  limit = pyarrow.total_allocated_bytes() + (10 << 20)
  assert all(pyarrow.total_allocated_bytes() < limit
             for _ in arrow.pieces(source.removeprefix('arrow:'), 'text'))


def test_an_older_stream_is_read(tmp_path):
  """Of Arrow before 0.15: messages have no continuation mark."""
  table = pyarrow.table({'text': TEXTS})
  assert texts(read(write(tmp_path / 'a.arrow', table, use_legacy_format=True))) == TEXTS


@pytest.mark.parametrize('column', [
  pyarrow.array([['a', 'b'], ['c']]), pyarrow.array([1, 2]), pyarrow.nulls(2),
  pyarrow.array([[('a', 'b')], []], pyarrow.map_(pyarrow.string(), pyarrow.string()))])
def test_what_is_no_text_is_said_once(tmp_path, column):
  found = problems(read(write(tmp_path / 'a.arrow', pyarrow.table({'text': column}))))
  assert len(found) == 1 and found[0][1].startswith("not text: 'text' is a column of")


def test_other_files_are_damaged_and_arrow_files_are_not_text(tmp_path):
  for data in (b'', b'text', b'PAR1' * 5, b'ARROW1\0\0', bytes(100), b'\xff' * 100):
    (tmp_path / 'a').write_bytes(data)
    (_, problem), = problems(read(f'arrow:{tmp_path}/a'))
    assert problem.startswith('damaged or cut short: ')
  for new, _ in LAYOUTS:
    write(tmp_path / 'a', pyarrow.table({'text': TEXTS}), new=new)
    for kind in ('text', 'jsonl'):
      (_, problem), = problems(read(f'{kind}:{tmp_path}/a'))
      assert problem == 'not text, an Arrow file: read it by arrow:'


def test_the_memory_of_messages_is_counted_as_arrow_does(tmp_path):
  """The sizes of compressed buffers are those that Arrow finds."""
  table = pyarrow.table({'text': ['x' * 500] * 64, 'n': range(64)})
  sizes = []
  for compression in (None, 'zstd'):
    write(tmp_path / 'a', table, compression=compression)
    with (tmp_path / 'a').open('rb') as file:
      for limit in itertools.count(30_000, 8):
        file.seek(0)
        try:
          ipc.open_stream(arrow_messages.CheckedStream(file, limit)).read_all()
          break
        except arrow_messages.BatchTooLarge:
          continue
    sizes.append(limit)
  assert abs(sizes[0] - sizes[1]) < 200 and abs(sizes[0] - table.nbytes) < 300
