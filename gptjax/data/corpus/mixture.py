"""The mixture of corpora that a run reads: opened, validated, and sampled by weight."""

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

from gptjax.data.corpus import corpus_manifest, order, reader
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.storage.files import access, paths


class Mixture(NamedTuple):
  """One or more corpora; each list has one entry per corpus."""
  names: list     # distinct names of the folders, for messages and metrics
  weights: list   # shares in the batches, integers without a common divisor
  train: list     # reader.Corpus
  held_out: list  # reader.Corpus of the validation split, or None
  digest: str     # of the corpora and their weights

  def held_out_mean(self, values):
    """Return the weighted mean of values, one for each corpus with held-out text, in order."""
    weights = [w for w, corpus in zip(self.weights, self.held_out, strict=True) if corpus]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

  def held_out_bytes_per_token(self):
    """Return the UTF-8 bytes per token of the held-out splits, averaged by weight."""
    return self.held_out_mean([corpus.n_bytes / corpus.n_tokens for corpus in self.held_out if corpus])


def folders_and_weights(data):
  """Return ([folder], [weight]) of `config.data` (or its JSON)."""
  pairs = data['mixture'] or [(data['corpus'], 1.0)]
  return [folder for folder, _ in pairs], [weight for _, weight in pairs]


def require_corpora(data):
  """Raise InputError, with the command to run, if a corpus is missing and the run does not prepare it.

  Args:
    data: the resolved `config.data`.
  """
  if data.source:
    return
  for folder in folders_and_weights(data)[0]:
    if not access.is_folder(paths.parsed(folder)):
      known = folder == data.corpus and data.recipe
      own = f"--source='text:FOLDER/*.txt' --tokenizer={data.tokenizer or 'gpt2'}"
      recipe, cost = (data.recipe, f' ({data.recipe_cost})') if known else (own, '')
      raise InputError(f'corpus {folder} does not exist: create it{cost} with python -m gptjax.data.prepare '
                       f'{recipe} --out={shlex.quote(folder)}')


def open_mixture(folders, weights, *, verify):
  """Open both splits of the corpora of a mixture.

  Args:
    folders: folders of the corpora.
    weights: share of each in the batches, positive numbers (any scale).
    verify: as for `reader.open_corpus`.

  Raises:
    ValueError: a corpus is missing or damaged, one is listed twice, their tokenizers differ, or a weight is
      invalid (see `order.mixture_period`).
  """
  shares = order.mixture_period(tuple(weights)).shares.tolist()
  places = [absolute(folder) for folder in folders]
  if len(set(places)) < len(places):
    raise InputError(f'a corpus is listed twice in {list(folders)}: list it once, with its total weight')
  manifests = [corpus_manifest.read_manifest(folder) for folder in folders]
  tokenizers = [manifest['tokenizer'] for manifest in manifests]
  for folder, tokenizer in zip(folders, tokenizers, strict=True):
    if tokenizer['digest'] != tokenizers[0]['digest']:
      raise InputError(
        f'corpus {folder} was made with the tokenizer {tokenizer["name"]} (digest '
        f'{tokenizer["digest"][:12]}), corpus {folders[0]} with {tokenizers[0]["name"]} (digest '
        f'{tokenizers[0]["digest"][:12]}): corpora of a mixture need the same tokenizer, prepare one of them '
        'again')
  digests = [manifest['content'] for manifest in manifests]
  digest = digests[0] if len(digests) == 1 else hashlib.sha256(
    json.dumps([digests, shares]).encode()).hexdigest()
  return Mixture(short_names(places), shares,
                 [reader.open_corpus(folder, 'train', verify=verify) for folder in folders],
                 [_held_out(folder, verify) for folder in folders], digest)


def absolute(folder):
  """Return the absolute path of a folder, or its URL, as text."""
  place = paths.parsed(folder)
  return os.path.abspath(place) if isinstance(place, Path) else str(place)


def short_names(places):
  """Return distinct names of the absolute folders, here or in buckets, without the parent that all share."""
  schemes, names = zip(*(paths.split_url(place) for place in places), strict=True)
  if len(set(schemes)) > 1:
    return places
  rooted = [f'/{name.lstrip("/")}' for name in names]  # os.path would take gs://B/a for a relative path
  parent = os.path.commonpath([os.path.dirname(place) for place in rooted])
  return [os.path.relpath(place, parent) for place in rooted]


def _held_out(folder, verify):
  try:
    corpus = reader.open_corpus(folder, 'validation', verify=verify)
  except reader.MissingSplit:
    return None
  return corpus if corpus.n_tokens > 1 else None  # one token has no target


def use_trained_vocabulary(mixture, config, overrides=()):
  """Set `config.model.n_vocab`, in place, to the entries of a corpus that has a character-level tokenizer.

  It does so only if `config.data.tokenizer` is `train-char`, whose size is unknown until the text is read.

  Args:
    mixture: Mixture.
    config: config of the run.
    overrides: names of the fields that the command line sets.

  Returns:
    A line that says so; '' if nothing is changed.

  Raises:
    InputError: the command line sets another size.
  """
  tokenizer, n_vocab = mixture.train[0].tokenizer, config.model.n_vocab
  if config.data.tokenizer != 'train-char' or tokenizer['name'] != 'char' or n_vocab == tokenizer['n_vocab']:
    return ''
  if 'model.n_vocab' in overrides:
    raise InputError(f'config.model.n_vocab = {n_vocab}, but corpus {mixture.train[0].folder} has '
                     f'{tokenizer["n_vocab"]} entries: its characters and the end-of-text token: remove the '
                     'flag')
  config.model.n_vocab = tokenizer['n_vocab']
  return f'from the characters of the corpus: config.model.n_vocab = {config.model.n_vocab} (not {n_vocab})'


def check_compatible(mixture, config):
  """Raise InputError if the config cannot train on the corpora.

  Raises:
    ValueError: the tokenizer differs from the config, or a corpus is shorter than one sequence.
  """
  data, tokenizer = config.data, mixture.train[0].tokenizer
  kind, _, folder = data.tokenizer.partition(':')
  other = ''
  if not config.init_from:
    other = f', or a model of its size: --config.model.n_vocab={tokenizer["n_vocab"]}'
  elif tokenizer['n_vocab'] < config.model.n_vocab:
    other = f', or, if the other rows are padding, give --config.model.n_vocab={tokenizer["n_vocab"]}'
  if tokenizer['n_vocab'] != config.model.n_vocab:
    raise InputError(f'corpus {mixture.train[0].folder} was made with the tokenizer {tokenizer["name"]} of '
                     f'{tokenizer["n_vocab"]} entries, but config.model.n_vocab = {config.model.n_vocab}: '
                     f'use a corpus made with the right tokenizer{other}')
  trained = 'train-bpe', f'train-{tokenizer["name"]}'
  if kind not in ('', *trained, tokenizer['name']) or (
      folder and kind == tokenizer['name'] and loading.load(data.tokenizer).digest != tokenizer['digest']):
    raise InputError(f'corpus {mixture.train[0].folder} was made with the tokenizer {tokenizer["name"]} '
                     f'(digest {tokenizer["digest"][:12]}), not with config.data.tokenizer = '
                     f'{data.tokenizer!r}: prepare it again')
  for corpus in mixture.train:
    if reader.n_windows(corpus, data.seq_len, True) < 1:
      raise InputError(f'corpus {corpus.folder} has {corpus.n_tokens:,} tokens to train on, fewer than the '
                       f'{data.seq_len + 1:,} that a sequence of config.data.seq_len = {data.seq_len} needs: '
                       'shorten it, or prepare more text')
