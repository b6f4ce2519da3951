"""The text of a long document is that of its tokens decoded together, and only a part of it is in memory."""

from unittest import mock

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gptjax.data.sources import decoded
from gptjax.data.tokenizers import byte_bpe, characters, gpt1_text, hf_tokenizer, training

TEXTS = ['the cat sat on the mat', ' two  spaces and   three ', 'naïve café 日本 \U0001f600 end',
         'a\n\nb\tc, d.']
WORDS = ['the', ' ', 'cat', ' mat', '\n', '  ', 'café', '日本', '\U0001f600', '.', 'é', '日本é' * 40,
         '\U0001f600é' * 90]
KINDS = ['bpe', 'char', 'sentencepiece', 'gpt1', 'metaspace', 'wordpiece', 'byte fallback']


def library(kind):
  """A tokenizer of the library whose decoder looks at what precedes a token."""
  if kind == 'wordpiece':
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token='[UNK]'))
    made.pre_tokenizer, made.decoder = tokenizers.pre_tokenizers.Whitespace(), tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=90, special_tokens=['[UNK]'],
                                                   show_progress=False)
  else:
    pieces = {f'<0x{i:02X}>': i for i in range(256)} if kind == 'byte fallback' else {}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=bool(pieces), fuse_unk=True))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    decoders = tokenizers.decoders
    made.decoder = decoders.Metaspace() if not pieces else decoders.Sequence(
      [decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)])
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=340, special_tokens=list(pieces), show_progress=False)
  made.train_from_iterator([text for text in TEXTS if kind != 'byte fallback' or text.isascii()] * 5, trainer)
  return hf_tokenizer.LibraryTokenizer(made.to_str().encode(), b'{}')


@pytest.fixture(scope='module')
def coders(tmp_path_factory):
  made = {kind: library(kind) for kind in KINDS[4:]}
  made['bpe'] = byte_bpe.train_bpe(TEXTS * 5, 290)
  made['char'] = characters.train_characters(TEXTS)
  made['sentencepiece'] = training.train('sentencepiece', 290, TEXTS * 5, progress=False)
  symbols = [*'abcdefghijklmnopqrstuvwxyz.,é', *(f'{c}</w>' for c in 'abcdefghijklmnopqrstuvwxyz.,é'),
             '\n</w>', 'th', 'the</w>', '<unk>']
  encoder = '{' + ', '.join(f'{ascii(s)[1:-1]!r}: {i}' for i, s in enumerate(symbols)) + '}'
  encoder = encoder.replace("'", '"').replace('\\\\', '\\').replace('\\xe9', '\\u00e9')
  made['gpt1'] = gpt1_text.GPT1(encoder.encode(), b'#version: 0.2\nt h\nth e</w>\n')
  return made


@pytest.mark.parametrize('kind', KINDS)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 60), words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=20))
def test_the_parts_are_the_text_of_all_tokens(kind, coders, data, n, words):
  coder = coders[kind]
  text = ''.join(word for word in words if kind not in ('char',) or set(word) <= set(''.join(TEXTS)))
  ids = np.asarray(coder.encode(text or 'a'), np.int32)
  start = data.draw(st.integers(0, max(len(ids) - 1, 0)))
  assume(decoded.REPLACEMENT not in coder.decode(ids[start:]))  # it begins with a character
  with mock.patch.object(decoded, 'DECODED_TOKENS', n):
    parts = [*decoded.texts(lambda a, b: ids[a:b], coder, start, len(ids))]
  assert ''.join(parts) == coder.decode(ids[start:])


@pytest.mark.parametrize('kind', KINDS)
def test_few_tokens_are_decoded_at_a_time(kind, coders, monkeypatch):
  coder, most = coders[kind], []
  ids = np.tile(coder.encode('the cat sat on the mat'), 200)
  monkeypatch.setattr(decoded, 'DECODED_TOKENS', 100)
  def read(start, stop):
    most.append(stop - start)
    return ids[start:stop]
  assert ''.join(decoded.texts(read, coder, 0, len(ids))) == coder.decode(ids)
  assert max(most) <= 100 + decoded.CONTEXT + decoded.MAX_MORE
