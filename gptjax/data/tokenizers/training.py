"""Trains a tokenizer on the texts of sources."""

from gptjax.command.parsers.tokenizer import VOCAB_SIZES
from gptjax.data import progress as progress_bar
from gptjax.data.tokenizers.byte_bpe import train_bpe
from gptjax.data.tokenizers.sentence_piece import train_sentencepiece
from gptjax.errors import InputError

TRAINERS = {'bpe': (train_bpe, 1 << 28), 'sentencepiece': (train_sentencepiece, 1 << 26)}


def train(kind, n_vocab, texts, *, progress):
  """Train a new tokenizer on the first 268 (bpe) or 67 (sentencepiece) million characters of the texts.

  The limit bounds the memory of training.

  Args:
    kind: 'bpe' or 'sentencepiece'.
    n_vocab: number of entries.
    texts: iterable of str.
    progress: show a bar on stderr.
  """
  if kind not in TRAINERS:
    raise InputError(f'kind = {kind!r} is not one of {sorted(TRAINERS)}')
  VOCAB_SIZES.require('n_vocab', n_vocab)
  trainer, limit = TRAINERS[kind]
  with progress_bar.bytes_bar(f'reading for a {kind} of {n_vocab:,}', progress) as bar:
    return trainer(_first(texts, limit, bar), n_vocab)


def _first(texts, characters, bar):
  for text in texts:
    if characters <= 0:
      return
    characters -= len(text)
    bar.update(len(text.encode()))
    yield text
