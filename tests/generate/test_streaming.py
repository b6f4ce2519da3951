"""Texts that grow: whole characters, stop strings across borders, the same however the tokens come."""

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st

from gptjax.data.tokenizers import byte_bpe, loading, sentence_piece
from gptjax.generate.streaming import GeneratedText

TEXT = 'naïve façade, 日本語 and 🙂🙃 emoji; the the then thence 🙂'


@pytest.fixture(scope='module', params=['bpe', 'sentencepiece', 'gpt1'])
def tokenizer(request):
  if request.param == 'gpt1' and not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  kind = {'gpt1': lambda: loading.load(f'gpt1:{SHARED}/bpe/gpt1'),
          'bpe': lambda: byte_bpe.train_bpe([TEXT], 270),
          'sentencepiece': lambda: sentence_piece.train_sentencepiece([TEXT], 284)}[request.param]
  return kind()


def pieces(text, ids, sizes):
  """The pieces that `take` gives, the tokens coming in groups of these sizes, again and again."""
  at, said = 0, []
  while at < len(ids) and not text.finish_reason:
    size = sizes[len(said) % len(sizes)]
    said.append(text.append(ids[at:at + size], 'length' if at + size >= len(ids) else ''))
    at += size
  return said


def test_every_piece_is_of_whole_characters(tokenizer):
  if tokenizer.name == 'gpt1':
    pytest.skip('GPT-1 has no tokens for parts of a character')
  ids = tokenizer.encode(TEXT).tolist()
  text = GeneratedText(tokenizer, tokenizer.encode('a')[-1:], 0, 1000, [])
  said = pieces(text, ids, [1])
  assert '\ufffd' not in ''.join(said) and len(said) > len(ids) / 2
  assert ''.join(said) == text.text and text.text.strip() == tokenizer.decode(ids).strip()


parts = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(data=st.data(), sizes=parts, others=parts)
def test_how_many_tokens_come_at_once_changes_nothing(tokenizer, data, sizes, others):
  ids = data.draw(st.lists(st.integers(3, tokenizer.n_vocab - 1), min_size=1, max_size=30))
  whole = tokenizer.decode(ids)
  stop = [whole[a:a + n] for a, n in data.draw(st.lists(st.tuples(
    st.integers(0, len(whole)), st.integers(1, 4)), max_size=3)) if whole[a:a + n].strip('\ufffd')]
  made = [GeneratedText(tokenizer, [5], 0, 1000, stop) for _ in range(2)]
  for text, one in zip(made, (sizes, others)):
    assert ''.join(pieces(text, ids, one)) == text.text
    assert text.finish_reason and not any(string in text.text for string in stop)
  assert made[0].text == made[1].text and made[0].finish_reason == made[1].finish_reason


def test_a_stop_string_across_tokens_is_cut_off_and_nothing_of_it_was_shown():
  tokenizer = byte_bpe.train_bpe([TEXT], 257)  # a token a byte
  text = GeneratedText(tokenizer, [0], 0, 100, ['then', 'thence'])
  said = pieces(text, tokenizer.encode('so the theatre, then on').tolist(), [1])
  assert said[:9] == ['s', 'o', ' ', '', '', '', 'the ', '', '']  # the, and then? No, a blank
  assert text.text == 'so the theatre, ' and text.finish_reason == 'stop'
  text = GeneratedText(tokenizer, [0], 0, 100, ['then'])
  assert ''.join(pieces(text, tokenizer.encode('so the').tolist(), [1])) == 'so the'
  text = GeneratedText(tokenizer, [0], 0, 100, ['abcd', 'bc'])  # the one that is complete first
  assert ''.join(pieces(text, tokenizer.encode('abcd').tolist(), [4])) == 'a'


def test_each_of_several_ends_ends_a_text():
  tokenizer = byte_bpe.train_bpe(['a stone in the rain ' * 9], 270)
  tokenizer.eos_ids = (3, 17)
  for end in tokenizer.eos_ids:
    text = GeneratedText(tokenizer, [0], 0, 100, [])
    text.append([65, end, 66], '')
    assert (text.finish_reason, text.ids) == ('end', [0, 65])
  text = GeneratedText(tokenizer, [0], 0, 100, [])
  text.append([65, tokenizer.end_of_text, 66], '')
  assert text.finish_reason == '', 'where the model names its ends, the end-of-text token is none of them'


def test_the_end_of_text_token_ends_a_text_and_is_none_of_it():
  tokenizer = byte_bpe.train_bpe([TEXT], 257)
  text = GeneratedText(tokenizer, np.array([256]), 0, 100, [])
  assert text.append([*tokenizer.encode('ab'), 256, *tokenizer.encode('cd')], '') == 'ab'
  assert text.finish_reason == 'end' and text.ids == [256, *tokenizer.encode('ab')] and text.remaining == 98
  cut = GeneratedText(tokenizer, [0], 0, 100, [])
  assert cut.append(tokenizer.encode('é')[:1].tolist(), 'length') == ''  # half a character is none
