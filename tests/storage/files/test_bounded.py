"""What anyone may have written is read within limits: files, lines, values of JSON, documents."""

import json

import hypothesis
import pytest
from finetune import published
from hypothesis import strategies as st
from source_files import problems, read

from gptjax.data.sources import files, tfds
from gptjax.data.tokenizers import hf_tokenizer, loading
from gptjax.errors import InputError
from gptjax.evaluate.texts import sources
from gptjax.finetune.tasks import examples, text_files
from gptjax.storage.files import bounded

JSON = st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


@hypothesis.given(JSON, st.booleans())
@hypothesis.settings(max_examples=100, deadline=None)
def test_json_within_limits_is_what_it_always_was(value, plain):
  text = json.dumps(value, ensure_ascii=plain)
  assert bounded.parse(text) == bounded.parse(text.encode()) == value


def size(value):
  """How many values there are in one, itself and keys counted."""
  inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
  return 1 + sum(map(size, inner))


@hypothesis.given(JSON)
@hypothesis.settings(max_examples=100, deadline=None)
def test_half_as_many_values_as_the_limit_are_never_refused_and_twice_as_many_always(value):
  text = json.dumps(value)
  assert bounded.parse(text, 2 * size(value)) == value
  if size(value) > 2:
    with pytest.raises(ValueError, match='more than'):
      bounded.parse(text, size(value) // 2 - 1)


@pytest.mark.parametrize('text', [
  '[' + '[],' * 300 + '[]]', json.dumps({i: {} for i in range(200)}), '[' + '1,' * 300 + '1]',
  '["' + '","' * 300 + '"]'])
def test_many_values_are_refused_before_they_are_made(text, monkeypatch):
  monkeypatch.setattr(bounded.json, 'loads', None)
  with pytest.raises(ValueError, match='it has more than 100 values'):
    bounded.parse(text.encode(), 100)


def test_marks_in_texts_are_no_values():
  text = json.dumps({'text': '[],{}:"\\' * 500, 'url': 'é,' * 100})
  assert bounded.parse(text, 10)['url'] == 'é,' * 100


@pytest.mark.parametrize('text, why', [
  (b'[' * 100_000, 'nested too deeply'), (b'"\xff"', "can't decode"), (b'"\\', 'Unterminated'),
  (b'["' * 500, 'more than 100 values|delimiter'), (b'', 'Expecting value'),
  (b'{"a": ' + b'9' * 5000 + b'}', '^it has a number of too many digits$')])
def test_what_is_not_json_is_a_value_error(text, why):
  with pytest.raises(ValueError, match=why):
    bounded.parse(text, 100 if len(text) < 5000 else bounded.MAX_VALUES)


def test_a_line_of_many_values_is_a_problem_of_its_document(tmp_path):
  line = '{"text": "a", "x": [' + '[],' * bounded.MAX_VALUES + '[]]}\n'
  (tmp_path / 'a.jsonl').write_text('{"text": "one"}\n' + line + '{"text": "two"}\n')
  found = read(f'jsonl:{tmp_path}/a.jsonl')
  assert [piece.text for piece in found] == ['one', '', 'two']
  ((location, problem),) = problems(found)
  assert location.endswith('a.jsonl:2') and problem == 'not JSON: it has more than 1,048,576 values'
  (tmp_path / 'a.jsonl').write_text(line)
  with pytest.raises(InputError, match=r'a\.jsonl:1.*more than 1,048,576 values'):
    sources.read_jsonl(sources.DataOptions('', '', 0), tmp_path / 'a.jsonl', None)
  config = published_config(tmp_path)
  with pytest.raises(InputError, match=r'line 1 is not a JSON object .*more than 1,048,576 values'):
    list(examples.read_records(examples.Jsonl('a.jsonl'), config, 'task t'))


def published_config(folder):
  from types import SimpleNamespace
  return SimpleNamespace(finetune=SimpleNamespace(data_dir=str(folder)))


@pytest.mark.parametrize('kind', [examples.Jsonl, examples.Tsv])
def test_a_line_without_an_end_is_not_read_whole(tmp_path, monkeypatch, kind):
  monkeypatch.setattr(text_files, 'MAX_LINE', 50)
  (tmp_path / 'a').write_text('{"a": 1}\n' + 'x' * 50 + '\n')
  with pytest.raises(InputError, match='line 2 has 50 characters or more'):
    list(examples.read_records(kind('a'), published_config(tmp_path), 'task t'))


def test_every_source_has_the_limit_of_a_document(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 100)
  texts = ['a ' * 50, 'é' * 51, 'b']
  too_long = 'too long: a document of more than 100 bytes'
  for value in (texts, [text.encode() for text in texts]):
    make = files.document_pieces if isinstance(value[0], str) else files.decode_document
    found = [piece for text in value for piece in make(text, 'p', {})]
    assert [piece.problem for piece in found] == ['', too_long, '']
  (tmp_path / 'a.txt').write_text('--'.join(texts))
  found = read(f'text:{tmp_path}/a.txt', separator='--')
  assert [piece.problem for piece in found] == ['', too_long, '']


def test_texts_of_tfds_that_are_long_are_read_one_by_one(tmp_path, monkeypatch):
  folder = published.write(tmp_path, 'glue/cola')
  source = 'tfds:glue/cola:train:sentence'
  stored = [row['sentence'] for row in published.SETS['glue/cola']['train']]
  assert {len(text) > 4 for text in stored} == {True, False}
  first = read(source, tfds_dir=folder)
  assert sorted(piece.text for piece in first) == sorted(stored)
  monkeypatch.setattr(tfds, 'BATCH', 2)
  monkeypatch.setattr(tfds, 'LONG', 4)
  assert read(source, tfds_dir=folder) == first
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 8)
  found = read(source, tfds_dir=folder)
  assert [piece.text for piece in found] == [piece.text * (len(piece.text) <= 8) for piece in first]
  assert [piece.location for piece in found] == [piece.location for piece in first]
  (shard,) = (tmp_path / 'glue' / 'cola').glob('*/*train.tfrecord*')
  shard.write_bytes(shard.read_bytes()[:-9])
  assert problems(read(source, tfds_dir=folder))[-1][1].startswith('damaged or cut short')


@pytest.mark.parametrize('name', [
  'tokenizer.json', 'tokenizer_config.json', 'vocab.json', 'merges.txt', 'a.model'])
def test_files_of_tokenizers_are_read_to_a_limit(tmp_path, name):
  if name != 'a.model':  # which is not read beside them
    (tmp_path / 'vocab.json').write_text('{"a": 0}')
    (tmp_path / 'merges.txt').write_text('')
  with open(tmp_path / name, 'wb') as file:
    file.truncate(bounded.MAX_FILE_BYTES + 1)  # without a byte of it on disk
  with pytest.raises(InputError, match=f'{name} has more than 67,108,864 bytes'):
    hf_tokenizer.load_folder(tmp_path)


def test_openais_tokenizer_files_too(tmp_path):
  for name in ('encoder.json', 'vocab.bpe'):
    with open(tmp_path / name, 'wb') as file:
      file.truncate(bounded.MAX_FILE_BYTES + 1)
  with pytest.raises(InputError, match=r'encoder\.json has more than'):
    loading.load(f'bpe:{tmp_path}')
