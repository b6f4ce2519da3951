"""A text at which a tokenizer fails is a problem of its document; a run of a million spaces is none."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from prepared import documents, write_jsonl
from prepared import run as prepare

from gptjax.data import encode
from gptjax.data.corpus import reader
from gptjax.data.sources import files
from gptjax.data.tokenizers import byte_bpe, hf_tokenizer, loading
from gptjax.errors import InputError

TEXTS = ['one two', 'two BAD', 'three two one', 'BAD', 'five']


def run(source, out, tokenizer='train-bpe:257', **options):
  return prepare(source, out, tokenizer, **options)


class PanicException(BaseException):
  """As native code raises it."""


@pytest.fixture
def failing(monkeypatch):
  """Tokenizers that fail at BAD, with an error that the test may choose."""
  raised, whole = [ValueError('Max stack size\nexceeded')], byte_bpe.ByteBPE.encode

  def fail(self, text):
    if 'BAD' in text:
      raise raised[0]
    return whole(self, text)

  monkeypatch.setattr(byte_bpe.ByteBPE, 'encode', fail)
  return raised


@pytest.mark.parametrize('error', [
  ValueError('x\ny'), RuntimeError('x y'), Exception('x y'), PanicException('x y')])
def test_a_document_that_cannot_be_encoded_is_left_out_and_listed(tmp_path, failing, error):
  failing[0] = error
  source = write_jsonl(tmp_path / 'a.jsonl', TEXTS)
  with pytest.raises(InputError, match=r'a\.jsonl:2: cannot be encoded: x y; --on_error=skip would leave it'):
    run(source, tmp_path / 'out', validation_fraction=0)
  manifest = run(source, tmp_path / 'skip', validation_fraction=0, on_error='skip')
  assert manifest['skipped'] == {encode.ENCODE_FAILED: 2}
  assert documents(tmp_path / 'skip', 'train') == ['one two', 'three two one', 'five']
  assert manifest['splits']['train']['bytes'] == sum(len(text) for text in TEXTS if 'BAD' not in text)
  assert (tmp_path / 'skip' / 'skipped.txt').read_text().split('\n') == [
    f'{tmp_path}/a.jsonl:{line}: cannot be encoded: x y' for line in (2, 4)] + ['']


def test_what_is_held_out_is_chosen_without_it(tmp_path, failing):
  source = write_jsonl(tmp_path / 'a.jsonl', TEXTS * 20)
  manifest = run(source, tmp_path / 'skip', validation_fraction=0.3, on_error='skip', seq_len=8)
  assert manifest['skipped'] == {encode.ENCODE_FAILED: 40}


def test_a_mistake_of_the_program_stays_one(tmp_path, failing):
  failing[0] = TypeError('a bug')
  with pytest.raises(TypeError, match='a bug'):
    run(write_jsonl(tmp_path / 'a.jsonl', TEXTS), tmp_path / 'out', validation_fraction=0, on_error='skip')


def test_a_piece_that_fails_is_missing_in_its_document_and_moves_no_other(tmp_path, failing, monkeypatch):
  monkeypatch.setattr(files, 'MAX_PIECE', 20)
  texts = ['first words here\nBAD\nmore words than one\n' * 2, 'alone', 'BAD ' * 8 + '\nat the end of it all']
  source = write_jsonl(tmp_path / 'a.jsonl', texts)
  manifest = run(source, tmp_path / 'out', validation_fraction=0, on_error='skip')
  found = documents(tmp_path / 'out', 'train')
  assert len(found) == 3 and found[1] == 'alone' and manifest['skipped'] == {encode.ENCODE_FAILED: 2}
  assert 'BAD' not in ''.join(found) and 'first words here' in found[0] and 'end of it all' in found[2]


@pytest.mark.parametrize('white', [' ', '\n', ' \n', '\u3000'])
def test_a_million_spaces_are_encoded(tmp_path, white):
  text = 'a' + white * (1_020_000 // len(white)) + 'b'
  tokenizer = byte_bpe.train_bpe(['a b  c'], 258)
  assert tokenizer.decode(tokenizer.encode(text)) == text
  tokenizer.save(tmp_path / 'made')
  source = write_jsonl(tmp_path / 'a.jsonl', [text, 'c'])
  manifest = run(source, tmp_path / 'out', str(tmp_path / 'made'), validation_fraction=0)
  assert manifest['skipped'] == {} and documents(tmp_path / 'out', 'train') == [text, 'c']


@hypothesis.given(st.text('ab.,!1 \n\'é-', max_size=60), st.integers(12, 30))
@hypothesis.settings(max_examples=500, deadline=None)
def test_ids_are_those_of_the_text_in_one(text, most):
  """Wherever a text is cut, if it has a place to cut in each half of a part."""
  tokenizer = train()
  whole = tokenizer.coder.encode(text, disallowed_special=())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(byte_bpe, 'TIKTOKEN_CHARACTERS', most)
    parts, rest = [], text
    while rest:
      parts.append(rest[:files.cut_position(rest[:most + 1], most)])
      rest = rest[len(parts[-1]):]
    anywhere = any(len(part) == most and not files._BEFORE_PUNCTUATION.match(part[-1] + after[:1])
                   and after[:1] not in ' \n' for part, after in itertools.pairwise(parts))
    found = tokenizer.encode(text)
  assert found.dtype == np.int32 and tokenizer.decode(found) == text
  if not anywhere:
    assert found.tolist() == whole


def train(made=[]):  # noqa: B006  # once
  if not made:
    made.append(byte_bpe.train_bpe(["ab ba, it's a. b! a1 11 é-é\n\n  ab"], 262))
  return made[0]


def test_a_document_that_cannot_come_in_parts_is_a_problem_of_its_own(tmp_path, monkeypatch):
  import tokenizers as library
  made = library.Tokenizer(library.models.WordLevel({'a': 0, '?': 1}, unk_token='?'))
  made.pre_tokenizer = library.pre_tokenizers.Whitespace()
  made.save(str(tmp_path / 'tokenizer.json'))
  assert isinstance(loading.load(str(tmp_path)), hf_tokenizer.LibraryTokenizer)
  monkeypatch.setattr(files, 'MAX_PIECE', 20)
  source = write_jsonl(tmp_path / 'a.jsonl', ['a a', 'a ' * 30, 'a'])
  with pytest.raises(InputError, match=r'a\.jsonl:2: cannot be encoded: a document of more than a million'):
    run(source, tmp_path / 'out', str(tmp_path), validation_fraction=0)
  manifest = run(source, tmp_path / 'skip', str(tmp_path), validation_fraction=0, on_error='skip')
  assert manifest['skipped'] == {encode.ENCODE_FAILED: 1}
  assert reader.open_corpus(str(tmp_path / 'skip'), 'train', verify=True).n_documents == 3
