"""Trains a tokenizer on the texts of sources."""

import math
from collections.abc import Callable
from typing import NamedTuple

from gptjax.command.parsers.tokenizer import VOCAB_SIZES
from gptjax.data import progress as progress_bar
from gptjax.data.tokenizers.byte_bpe import train_bpe
from gptjax.data.tokenizers.characters import train_characters
from gptjax.data.tokenizers.sentence_piece import train_sentencepiece
from gptjax.errors import InputError

TRAIN = 'train-'  # starts the spec of a tokenizer that is trained on the corpus


class Trainer(NamedTuple):
  """How to train one kind of tokenizer.

  train: function of (iterable of str, number of entries), or of the iterable alone without `sized`.
  max_characters: limit on the training text, which bounds the memory of training; inf: none.
  sized: whether the number of entries is chosen; else the text determines it.
  spec: whether `train-KIND` (with :N if sized) is a tokenizer of `gptjax.data.prepare`.
  """
  train: Callable
  max_characters: float
  sized: bool
  spec: bool


TRAINERS = {
  'bpe': Trainer(train_bpe, 1 << 28, sized=True, spec=True),
  'char': Trainer(train_characters, math.inf, sized=False, spec=True),
  'sentencepiece': Trainer(train_sentencepiece, 1 << 26, sized=True, spec=False),
}
SPECS = {f'{TRAIN}{kind}': kind for kind, trainer in TRAINERS.items() if trainer.spec}


def parse_spec(spec):
  """Return (kind, number of entries or None) of `train-bpe:N` or `train-char`; None for other tokenizers.

  Raises:
    InputError: the number is missing, not allowed, or not of a tokenizer that has one.
  """
  name, colon, size = spec.partition(':')
  if name not in SPECS:
    return None
  if TRAINERS[SPECS[name]].sized:
    if not size:
      raise InputError(f'tokenizer {spec}: the number of entries is missing: write {name}:N, as in '
                       f'{name}:8192')
    return SPECS[name], VOCAB_SIZES.parse(f'tokenizer {spec}, which is {name}:N', size)
  if colon:
    raise InputError(f'tokenizer {spec}: the text determines the number of entries: write {name}')
  return SPECS[name], None


def train(kind, n_vocab, texts, *, progress):
  """Train a new tokenizer on texts.

  A bpe reads the first 268 million characters, a sentencepiece model 67 million, which bounds the memory of
  training; char reads all.

  Args:
    kind: 'bpe', 'char' or 'sentencepiece'.
    n_vocab: number of entries; None for char, whose entries are the characters of the texts.
    texts: iterable of str.
    progress: show a bar on stderr.
  """
  if kind not in TRAINERS:
    raise InputError(f'kind = {kind!r} is not one of {sorted(TRAINERS)}')
  trainer = TRAINERS[kind]
  if not trainer.sized and n_vocab is not None:
    raise InputError(f'n_vocab = {n_vocab}: the text determines the number of entries of {kind}: omit it')
  if trainer.sized:
    VOCAB_SIZES.require('n_vocab', n_vocab)
  size = f' of {n_vocab:,} entries' if trainer.sized else ''
  with progress_bar.bytes_bar(f'training a {kind} tokenizer{size}', progress) as bar:
    texts = _first(texts, trainer.max_characters, bar)
    return trainer.train(texts, n_vocab) if trainer.sized else trainer.train(texts)


def _first(texts, characters, bar):
  """Yield texts until `characters` (math.inf: no limit) have been read."""
  for text in texts:
    if characters <= 0:
      return
    characters -= len(text)
    bar.update(len(text.encode()))
    yield text
