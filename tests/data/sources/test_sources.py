"""Every kind of source gives the documents that were put in, and names those it cannot give."""

import io
import json
import logging
import subprocess
import sys

import fsspec
import hypothesis
import pyarrow
import pytest
from conftest import SHARED
from hypothesis import strategies as st
from pyarrow import parquet
from source_files import COMPRESSED, TEXTS, compress, jsonl, problems, read, texts

from gptjax.data.prepare import prepare
from gptjax.data.sources import decoded, files, python
from gptjax.data.sources import documents as sources
from gptjax.data.tokenizers import training

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f'needs the data folder {SHARED}')


@pytest.mark.parametrize('suffix', ['', *COMPRESSED])
def test_text_files_are_documents_in_the_order_of_their_names(tmp_path, suffix):
  for name, text in zip('bac', TEXTS, strict=True):
    (tmp_path / f'{name}.txt{suffix}').write_bytes(compress(text.encode(), suffix))
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub' / f'd.txt{suffix}').write_bytes(compress(b'deep', suffix))
  assert texts(read(f'text:{tmp_path}/*.txt{suffix}')) == [TEXTS[1], TEXTS[0], TEXTS[2]]
  assert texts(read(f'text:{tmp_path}/**/*.txt{suffix}'))[-1] == 'deep'


@pytest.mark.parametrize('suffix', ['', *COMPRESSED])
@pytest.mark.parametrize('field', ['text', 'body'])
def test_jsonl(tmp_path, suffix, field):
  (tmp_path / f'a.jsonl{suffix}').write_bytes(compress(jsonl(field), suffix))
  spec = f'jsonl:{tmp_path}/a.jsonl{suffix}' + ('' if field == 'text' else f':{field}')
  assert texts(read(spec)) == TEXTS


def test_parquet(tmp_path):
  urls = ['http://a.example', None, 'http://c.example']
  table = pyarrow.table({'body': TEXTS, 'url': urls, 'n': [1, 2, 3]})
  parquet.write_table(table, tmp_path / 'a.parquet', row_group_size=2)
  found = read(f'parquet:{tmp_path}/*.parquet:body')
  assert texts(found) == TEXTS
  assert [piece.fields.get('url') for piece in found] == urls
  (location, problem), *_ = problems(read(f'parquet:{tmp_path}/a.parquet'))
  assert location.endswith('a.parquet:1') and problem == (
    "no such field: 'text' is not a column, there are body, url, n")


def test_fields_of_records_are_kept_for_the_cleaning(tmp_path):
  record = {'text': 'a b', 'url': 'http://x.example/', 'title': 'T', 'n': 3, 'domain': None}
  (tmp_path / 'a.jsonl').write_text(json.dumps(record))
  assert read(f'jsonl:{tmp_path}/a.jsonl')[0].fields == {'url': 'http://x.example/', 'title': 'T'}


def test_whatever_fsspec_opens():
  system = fsspec.filesystem('memory')
  for name, suffix in ('b', ''), *(('a', suffix) for suffix in COMPRESSED):
    with system.open(f'/corpus/{name}.jsonl{suffix}', 'wb') as file:
      file.write(compress(jsonl(), suffix))
  assert texts(read('jsonl:memory://corpus/*.jsonl*')) == TEXTS * 6
  assert texts(read('jsonl:memory://corpus/b.jsonl:text')) == TEXTS
  with pytest.raises(ValueError, match='no file'):
    read('jsonl:memory://nowhere/*.jsonl')


@pytest.fixture
def s3(monkeypatch):
  """A bucket `corpora` of a server on this machine that speaks S3."""
  pytest.importorskip('s3fs', reason="needs s3fs: pip install -e '.[test]'")
  server = pytest.importorskip('moto.server', reason="needs moto: pip install -e '.[test]'")
  logging.getLogger('werkzeug').setLevel(logging.ERROR)
  running = server.ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
  running.start()
  for name in 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY':
    monkeypatch.setenv(name, 'x')
  monkeypatch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://{}:{}'.format(*running.get_host_and_port()))
  system = fsspec.filesystem('s3', skip_instance_cache=True)
  system.mkdir('corpora')
  yield system
  running.stop()
  fsspec.filesystem('s3').clear_instance_cache()


def test_s3(s3, tmp_path):
  """Listed, read as every kind, named when broken; the corpus is the one that local files give."""
  table = io.BytesIO()
  parquet.write_table(pyarrow.table({'text': TEXTS}), table)
  contents = {f'a.jsonl{suffix}': compress(jsonl(), suffix) for suffix in ('', '.gz', '.zst')}
  contents |= {'d.parquet': table.getvalue(), 'e.txt': TEXTS[0].encode()}
  for name, data in contents.items():
    (tmp_path / name).write_bytes(data)
    s3.pipe_file(f'corpora/deep/{name}', data)
  for source in 'jsonl:{}/*.jsonl*', 'jsonl:{}/a.jsonl:text', 'parquet:{}/*.parquet', 'text:{}/*.txt':
    local, there = (read(source.format(root)) for root in (tmp_path, 's3://corpora/deep'))
    assert texts(there) == texts(local) and len(there) >= 1
  s3.pipe_file('corpora/cut.jsonl.gz', contents['a.jsonl.gz'][:-12])
  assert problems(read('jsonl:s3://corpora/cut.jsonl.gz'))[0][0].startswith('s3://corpora/cut.jsonl.gz:')
  for source in 'jsonl:s3://corpora/none/*', 'text:s3://elsewhere/a', 'text:s3://corpora/deep':
    with pytest.raises(ValueError, match='no file has this name'):
      read(source)
  made = [prepare([f'jsonl:{root}/*.jsonl*'], 'train-bpe:260', str(tmp_path / f'out{n}'), clean='', workers=n,
                  validation_fraction=0, tfds_dir='', on_error='stop', progress=False)
          for n, root in ((1, tmp_path), (2, 's3://corpora/deep'))]
  assert made[0]['content'] == made[1]['content']


@pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz', 'a.jsonl.zst', 'a.parquet'])
def test_a_file_that_stops_answering_is_no_damage_to_be_skipped(name, monkeypatch):
  """TimeoutError is an OSError without a number, as damage of a compressed file is."""
  table, suffix = io.BytesIO(), '.' + name.rpartition('.')[2]
  parquet.write_table(pyarrow.table({'text': TEXTS}), table)
  data = table.getvalue() if suffix == '.parquet' else compress(jsonl(), suffix)
  with fsspec.filesystem('memory').open(f'/remote/{name}', 'wb') as file:
    file.write(data)
  def fails(self, buffer):
    raise TimeoutError('no answer\nfor 30 seconds')
  monkeypatch.setattr('fsspec.implementations.memory.MemoryFile.readinto', fails)
  kind = 'parquet' if suffix == '.parquet' else 'jsonl'
  with pytest.raises(ValueError, match=rf'^memory://.*{name} cannot be read: TimeoutError no answer for'):
    read(f'{kind}:memory://remote/{name}')


@pytest.mark.parametrize('source, says', [
  ('text:nosuchthing://a/b', 'Protocol not known'), ('text:git://a/*', 'cannot be read')])
def test_file_systems_that_are_not_there(source, says):
  with pytest.raises(ValueError, match=says) as error:
    read(source)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('text, found', [
  ('a\n--\nb\n--\nc', ['a', 'b', 'c']), ('--\na\n--\nb\n--\n', ['\na\n', '\nb\n']),
  ('one', ['one']), ('--a', ['a'])])
def test_document_separator(tmp_path, text, found):
  (tmp_path / 'a.txt').write_text(text)
  separator = '--' if text.startswith('--') else '\n--\n'
  assert texts(read(f'text:{tmp_path}/a.txt', separator)) == found


@hypothesis.given(st.lists(st.text('ab\n', min_size=1, max_size=30).filter(str.strip), min_size=1,
                           max_size=20), st.integers(1, 9), st.sampled_from(['<|>', '\n\n\n', '|']))
@hypothesis.settings(deadline=None)
def test_separators_across_chunks(tmp_path_factory, documents, chunk, separator):
  documents = [text.strip() for text in documents]
  hypothesis.assume(all(separator not in text for text in documents))
  path = tmp_path_factory.mktemp('separated') / 'a.txt'
  path.write_text(separator.join(documents))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'CHUNK', chunk)
    assert texts(read(f'text:{path}', separator)) == documents


@hypothesis.given(st.text('ab .,\n日é\U0001f600', max_size=200).filter(str.strip),
                  st.integers(1, 40), st.integers(1, 40))
@hypothesis.settings(deadline=None)
def test_long_files_come_in_pieces_that_make_the_whole(tmp_path_factory, text, chunk, piece):
  path = tmp_path_factory.mktemp('long') / 'a.txt'
  path.write_bytes(text.encode())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'CHUNK', chunk)
    patch.setattr(files, 'MAX_PIECE', piece)
    found = read(f'text:{path}')
    assert found == [p._replace(location=f'{path}:1') for p in files.document_pieces(text, '', {})]
  assert ''.join(texts(found)) == text
  assert {p.length for p in found} == {len(text)} and len({p.digest for p in found}) == 1
  lengths = [len(p.text) for p in found]
  assert [p.start for p in found] == [sum(lengths[:i]) for i in range(len(found))]
  assert all(0 < len(p.text) <= piece for p in found)


BAD = b'caf\xe9'


@pytest.mark.parametrize('suffix', ['', *COMPRESSED])
def test_what_is_wrong_is_named_with_its_line(tmp_path, suffix):
  lines = [b'{"text": "good"}', b'', b'{"text": "' + BAD + b'"}', b'{"text": "half',
           b'{"text": ""}', b'{"text": " \\n "}', b'{"body": "x"}', b'[1]', b'{"text": 3}',
           b'{"text": null}', b'{"text": "\\ud800"}', b'{"text": "good too"}']
  path = tmp_path / f'a.jsonl{suffix}'
  path.write_bytes(compress(b'\n'.join(lines), suffix))
  found = read(f'jsonl:{path}')
  assert [piece.text for piece in found if not piece.problem] == ['good', 'good too']
  assert [(location, problem.split(':')[0]) for location, problem in problems(found)] == [
    (f'{path}:3', 'not UTF-8'), (f'{path}:4', 'not JSON'), (f'{path}:5', 'empty'),
    (f'{path}:6', 'empty'), (f'{path}:7', 'no such field'), (f'{path}:8', 'not an object'),
    (f'{path}:9', 'not text'), (f'{path}:10', 'empty'), (f'{path}:11', 'not Unicode')]


def test_bad_text_files_are_named_with_their_line(tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'one\ntwo\nthree ' + BAD + b'\n')
  (tmp_path / 'b.txt').write_bytes(b'')
  (tmp_path / 'c.txt').write_bytes(b' \n\n')
  (tmp_path / 'd.txt').write_bytes(b'ends within a letter \xc3')
  found = problems(read(f'text:{tmp_path}/*.txt'))
  assert [(location.rpartition('/')[2], problem.split(':')[0]) for location, problem in found] == [
    ('a.txt:3', 'not UTF-8'), ('b.txt:1', 'empty'), ('c.txt:1', 'empty'), ('d.txt:1', 'not UTF-8')]
  (tmp_path / 'a.txt').write_bytes(b'one\n\n--\n\n--\ntwo\n ' + BAD + b'\n--\nfour')
  found = read(f'text:{tmp_path}/a.txt', '--')
  assert [piece.text for piece in found if not piece.problem] == ['one\n\n', '\nfour']
  found = [(location.rpartition(':')[2], problem.split(':')[0]) for location, problem in problems(found)]
  assert found == [('5', 'empty'), ('6', 'not UTF-8')]


@pytest.mark.parametrize('suffix', COMPRESSED)
@pytest.mark.parametrize('kind', ['text', 'jsonl'])
@pytest.mark.parametrize('damage', ['cut', 'garbage'])
def test_damaged_files_are_named(tmp_path, suffix, kind, damage):
  lines = [json.dumps({'text': f'{i} {i * i:x} {i ^ 77:x} {i**3:x}'}) for i in range(9000)]
  data = compress('\n'.join(lines).encode(), suffix)
  path = tmp_path / f'a{suffix}'
  path.write_bytes(data[:len(data) * 2 // 3] if damage == 'cut' else b'garbage' * 50)
  found = read(f'{kind}:{path}')
  (location, problem), = problems(found)
  assert problem.startswith('damaged or cut short'), problem
  assert location.startswith(f'{path}:')
  if damage == 'cut' and kind == 'jsonl':
    assert len(found) > 3000 and int(location.rpartition(':')[2]) == len(found)
  if kind == 'text':
    assert len(found) == 1


def test_a_cut_parquet_file_is_named(tmp_path):
  buffer = io.BytesIO()
  parquet.write_table(pyarrow.table({'text': TEXTS}), buffer)
  (tmp_path / 'a.parquet').write_bytes(buffer.getvalue()[:-9])
  (location, problem), = problems(read(f'parquet:{tmp_path}/a.parquet'))
  assert location.endswith('a.parquet:1') and problem.startswith('damaged')


def test_too_long_a_line_is_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 1000)
  monkeypatch.setattr(files, 'CHUNK', 64)
  lines = b'{"text": "a"}\n{"text": "' + b'x' * 5000 + b'"}\n{"text": "b"}\n'
  (tmp_path / 'a.jsonl').write_bytes(lines)
  found = read(f'jsonl:{tmp_path}/a.jsonl')
  assert [piece.text for piece in found] == ['a', '', 'b']
  assert found[1].location.endswith(':2') and found[1].problem.startswith('too long')
  (tmp_path / 'a.txt').write_bytes(b'x' * 5000)
  assert read(f'text:{tmp_path}/a.txt', '--')[0].problem.startswith('too long')


@pytest.mark.parametrize('source', ['', 'python', 'text', 'text:', 'csv:a', 'text:/nowhere/*.txt',
                                    'jsonl:/nowhere/a.jsonl:text', 'parquet:/nowhere:x'])
def test_sources_that_are_not_there(source):
  with pytest.raises(ValueError, match=r'no file has this name|is none of') as error:
    read(source)
  assert '\n' not in str(error.value)


def test_a_file_whose_name_has_a_colon(tmp_path):
  (tmp_path / 'a:b').write_bytes(jsonl())
  assert texts(read(f'jsonl:{tmp_path}/a:b')) == TEXTS
  assert texts(read(f'jsonl:{tmp_path}/a:b:text')) == TEXTS


def test_python_is_a_megabyte_of_english_always_the_same():
  script = ('import hashlib, sys, warnings; warnings.simplefilter("error"); '
            'from gptjax.data.sources import python as p; '
            'print(hashlib.sha256("".join(x.text for x in p.pieces()).encode()).hexdigest(), '
            'sorted({"this", "antigravity", "turtle", "jax", "numpy"} & set(sys.modules)))')
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
  assert not done.stderr
  found = python.pieces()
  import hashlib
  digest = hashlib.sha256(''.join(texts(found)).encode()).hexdigest()
  assert done.stdout.split()[0] == digest and done.stdout.strip().endswith('[]')
  assert len(found) > 200 and sum(len(piece.text) for piece in found) > 1_000_000
  assert not any('site-packages' in piece.location for piece in found)
  module = next(piece.text for piece in found if piece.location == 'module textwrap')
  assert module.startswith('textwrap\n\nText wrapping and filling.') and 'textwrap.dedent' in module


@needs_data
@pytest.mark.parametrize('source, count, first', [
  ('tfds:tiny_shakespeare', 1, 'First Citizen:'), ('tfds:wsc273:test', 273, 'Fred watched TV'),
  ('tfds:glue/cola:validation:sentence', 1043, ''), ('tfds:glue/cola:2.0.0:validation', 1043, ''),
  ('tfds:glue/sst2:validation[:10%]:sentence', 87, ''),
  ('tfds:natural_questions_open:validation', 3610, '')])
def test_tfds(source, count, first):
  found = texts(read(source, tfds_dir=str(SHARED / 'tfds')))
  assert found[0].startswith(first)
  assert sum(map(bool, found)) == count


@needs_data
@pytest.mark.parametrize('source, message', [
  ('tfds:tiny_shakespeare:nosplit', 'no split'),
  ('tfds:tiny_shakespeare:train:nofield', 'no text field'),
  ('tfds:glue/rte', 'choose one'), ('tfds:not_a_data_set', 'not_a_data_set'),
  ('tfds:glue/cola:train:sentence:more', 'more than')])
def test_tfds_that_is_not_there(source, message):
  with pytest.raises(ValueError, match=message) as error:
    read(source, tfds_dir=str(SHARED / 'tfds'))
  assert '\n' not in str(error.value)


def test_a_tfds_set_that_is_not_there_is_not_downloaded_unasked(tmp_path, monkeypatch):
  import tensorflow_datasets as tfds
  asked = []
  monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', lambda self: asked.append(self.name))
  with pytest.raises(ValueError, match=r'glue/cola is not in .*tfds_download'):
    read('tfds:glue/cola:train:sentence', tfds_dir=str(tmp_path / 'none'))
  assert not asked and not list(tmp_path.iterdir())
  with pytest.raises(ValueError, match='glue/cola is not in'):
    sources.units(['tfds:glue/cola:train:sentence'], str(tmp_path / 'none'), True)
  assert asked == ['glue']


@pytest.mark.parametrize('tokens', [1 << 17, 7])
def test_a_corpus_gives_the_documents_that_went_into_it(tmp_path, monkeypatch, tokens):
  documents = [*TEXTS, '\u65e5\u672c ' * 300]
  (tmp_path / 'in.jsonl').write_text(''.join(json.dumps({'text': text}) + '\n' for text in documents))
  for tokenizer in ('train-bpe:300', 'sentencepiece'):
    folder = tmp_path / tokenizer[:5]
    if tokenizer == 'sentencepiece':
      made = training.train('sentencepiece', 290, documents * 3, progress=False)
      made.save(tmp_path / 'model')
      tokenizer = f'sentencepiece:{tmp_path}/model/sentencepiece.model'
    prepare([f'jsonl:{tmp_path}/in.jsonl'], tokenizer, folder, validation_fraction=0, clean='', workers=1,
            tfds_dir='', on_error='stop', progress=False)
    monkeypatch.setattr(decoded, 'DECODED_TOKENS', tokens)
    found = texts(read(f'corpus:{folder}'))
    if tokenizer.startswith('train'):
      assert found == documents and texts(read(f'corpus:{folder}:train')) == documents
    else:  # white space is not as it was
      assert [text.split() for text in found] == [text.split() for text in documents]
  with pytest.raises(ValueError, match='no tokens in its split'):
    read(f'corpus:{folder}:validation')
  with pytest.raises(ValueError, match='does not exist'):
    read(f'corpus:{tmp_path}/nowhere')


def test_a_folder_as_a_source_says_how_to_name_its_files(tmp_path):
  with pytest.raises(ValueError, match=rf'is a folder: name its files, as in text:{tmp_path}/\*\*/\*$'):
    sources.units([f'text:{tmp_path}'], '')
