"""The bytes of the text of tokens, counted without the text."""

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from gptjax.data.tokenizers import byte_bpe, characters, hf_tokenizer, sentence_piece, token_bytes

TEXT = 'The cat sat on the mat, and the dog saw the cat; é ü 猫\n' * 30
SETTINGS = b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}'


def library(model, **parts):
  made = tokenizers.Tokenizer(model)
  for name, part in parts.items():
    setattr(made, name, part)
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=320, show_progress=False, special_tokens=['<|end|>'],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
  made.train_from_iterator([TEXT], trainer)
  return hf_tokenizer.LibraryTokenizer(made.to_str().encode(), SETTINGS)


def byte_level(**parts):
  return library(tokenizers.models.BPE(), decoder=tokenizers.decoders.ByteLevel(), **{
    'pre_tokenizer': tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), **parts})


MADE = {
  'bpe': lambda: byte_bpe.train_bpe([TEXT], 270),
  'char': lambda: characters.train_characters([TEXT]),
  'sentencepiece': lambda: sentence_piece.train_sentencepiece([TEXT], 280),
  'tokenizers': byte_level}


@pytest.fixture(scope='module', params=MADE)
def tokenizer(request):
  return MADE[request.param]()


def size(tokenizer, texts):
  found = token_bytes.token_bytes(tokenizer)
  return found.exact, sum(int(found.n_bytes[tokenizer.encode(text)].sum()) + found.per_document
                          for text in texts)


@given(st.lists(st.text('The cat\né猫 ', min_size=1, max_size=40), max_size=3))
def test_the_sum_is_the_size_of_the_texts(tokenizer, texts):
  exact, total = size(tokenizer, texts)
  assert exact and total == sum(len(text.encode()) for text in texts)


def test_special_tokens_have_no_bytes(tokenizer):
  lengths = token_bytes.token_bytes(tokenizer).n_bytes
  assert lengths[tokenizer.end_of_text] == 0 and lengths.min() == 0
  assert not lengths[[*tokenizer.special_tokens.values()]].any()


def spaces_as_underscores(*added):
  """A tokenizer whose entries have U+2581 for a space, with bytes for other characters, as Gemma's."""
  entries = ['<|end|>', '\u2581', *(f'<0x{i:02X}>' for i in range(256))]
  vocab = {entry: i for i, entry in enumerate(entries)}
  made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], byte_fallback=True))
  made.normalizer = tokenizers.normalizers.Replace(' ', '\u2581')
  made.decoder = tokenizers.decoders.Sequence([
    tokenizers.decoders.Replace('\u2581', ' '), tokenizers.decoders.ByteFallback(),
    tokenizers.decoders.Fuse()])
  made.add_special_tokens(['<|end|>'])
  made.add_tokens(list(added))
  return hf_tokenizer.LibraryTokenizer(made.to_str().encode(), SETTINGS)


def test_added_tokens_of_spaces_have_the_bytes_of_spaces():
  tokenizer = spaces_as_underscores(tokenizers.AddedToken('\u2581\u2581', normalized=True))
  assert tokenizer.coder.token_to_id('\u2581\u2581') in tokenizer.encode('a  b')
  assert size(tokenizer, ['a  b', TEXT]) == (True, 4 + len(TEXT.encode()))


def test_sizes_that_do_not_add_up_are_an_estimate(monkeypatch):
  monkeypatch.setattr(token_bytes, '_piece_bytes', lambda piece: 2)
  assert not size(spaces_as_underscores(), [TEXT])[0]


def test_a_tokenizer_that_changes_texts_is_said_to(tmp_path):
  assert not size(byte_level(normalizer=tokenizers.normalizers.Lowercase()), [TEXT])[0]
