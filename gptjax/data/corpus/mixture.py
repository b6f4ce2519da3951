"""What a run reads: the corpora that its config names, opened, checked, and shared out by weight."""

import hashlib
import json
import os
import shlex
from typing import NamedTuple

from gptjax.data.corpus import corpus_manifest, order, reader
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError


class Mixture(NamedTuple):
  """One corpus or several; in each list an entry for each."""
  names: list     # what tells the folders apart, for messages and metrics
  weights: list   # shares in the batches, whole numbers without a common divisor
  train: list     # corpora.Corpus
  held_out: list  # corpora.Corpus of the validation split; None where there is none
  digest: str     # of what is read: the digests of the corpora and their weights

  def held_out_mean(self, values):
    """The mean, by the weights, of one number for each corpus that holds text out, in their order."""
    weights = [w for w, corpus in zip(self.weights, self.held_out, strict=True) if corpus]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

  def held_out_bytes_per_token(self):
    """UTF-8 bytes of text per token of the held-out splits, the mean by the weights."""
    return self.held_out_mean([corpus.n_bytes / corpus.n_tokens for corpus in self.held_out if corpus])


def folders_and_weights(data):
  """([folder], [weight]) of what `config.data` (or its JSON) names."""
  pairs = data['mixture'] or [(data['corpus'], 1.0)]
  return [folder for folder, _ in pairs], [weight for _, weight in pairs]


def require_corpora(data):
  """Refuses corpora that are not there and that nothing makes: names the command that makes them.

  Args:
    data: `config.data`, resolved.
  """
  if data.source:
    return
  for folder in folders_and_weights(data)[0]:
    if not os.path.isdir(folder):
      known = folder == data.corpus and data.recipe
      own = f"--source='text:FOLDER/*.txt' --tokenizer={data.tokenizer or 'gpt2'}"
      recipe, cost = (data.recipe, f' ({data.recipe_cost})') if known else (own, '')
      raise InputError(f'corpus {folder} does not exist: make it{cost} with python -m gptjax.data.prepare '
                       f'{recipe} --out={shlex.quote(folder)}')


def open_mixture(folders, weights, *, verify):
  """Opens both splits of corpora that are to be read together.

  Args:
    folders: of the corpora.
    weights: share of each in the batches, positive numbers (any scale).
    verify: as for `corpus.open_corpus`.

  Raises:
    ValueError: a corpus is absent or damaged, one is named twice, they were not made with the same
      tokenizer, or a weight is no share (see `order.mixture`).
  """
  shares = order.mixture_period(tuple(weights)).shares.tolist()
  places = [os.path.abspath(folder) for folder in folders]
  if len(set(places)) < len(places):
    raise InputError(f'a corpus is named twice in {list(folders)}: name it once, with all its weight')
  manifests = [corpus_manifest.read_manifest(folder) for folder in folders]
  made = [manifest['tokenizer'] for manifest in manifests]
  for folder, other in zip(folders, made, strict=True):
    if other['digest'] != made[0]['digest']:
      raise InputError(
        f'corpus {folder} was made with the tokenizer {other["name"]} (digest {other["digest"][:12]}), '
        f'corpus {folders[0]} with {made[0]["name"]} (digest {made[0]["digest"][:12]}): corpora that are '
        'read together need the same one, prepare one of them again')
  parent = os.path.commonpath([os.path.dirname(place) for place in places])
  digests = [manifest['content'] for manifest in manifests]
  digest = digests[0] if len(digests) == 1 else hashlib.sha256(
    json.dumps([digests, shares]).encode()).hexdigest()
  return Mixture([os.path.relpath(place, parent) for place in places], shares,
                 [reader.open_corpus(folder, 'train', verify=verify) for folder in folders],
                 [_held_out(folder, verify) for folder in folders], digest)


def _held_out(folder, verify):
  try:
    corpus = reader.open_corpus(folder, 'validation', verify=verify)
  except reader.MissingSplit:
    return None
  return corpus if corpus.n_tokens > 1 else None  # of one token, nothing can be predicted


def check_compatible(mixture, config):
  """Refuses corpora that the config cannot be run on.

  Raises:
    ValueError: another tokenizer than the config says, or less to train on than one sequence.
  """
  data, made = config.data, mixture.train[0].tokenizer
  kind, _, folder = data.tokenizer.partition(':')
  padding = ''
  if config.init_from and made['n_vocab'] < config.model.n_vocab:
    padding = f', or, if the rows beyond are padding, give --config.model.n_vocab={made["n_vocab"]}'
  if made['n_vocab'] != config.model.n_vocab:
    raise InputError(f'corpus {mixture.train[0].folder} was made with the tokenizer {made["name"]} of '
                     f'{made["n_vocab"]} entries, but config.model.n_vocab = {config.model.n_vocab}: use a '
                     f'corpus made with the right one{padding}')
  if kind not in ('', 'train-bpe', made['name']) or (
      folder and kind == made['name'] and loading.load(data.tokenizer).digest != made['digest']):
    raise InputError(f'corpus {mixture.train[0].folder} was made with the tokenizer {made["name"]} (digest '
                     f'{made["digest"][:12]}), not with config.data.tokenizer = {data.tokenizer!r}: '
                     'prepare it again')
  for corpus in mixture.train:
    if reader.n_windows(corpus, data.seq_len, True) < 1:
      raise InputError(f'corpus {corpus.folder} has {corpus.n_tokens:,} tokens to train on, fewer than the '
                       f'{data.seq_len + 1:,} that a sequence of config.data.seq_len = {data.seq_len} needs: '
                       'shorten it, or prepare more text')
