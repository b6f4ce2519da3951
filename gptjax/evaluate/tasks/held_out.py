"""Held-out loss: the validation split of a prepared corpus, read as pretraining reads it.

The windows are those of `eval/loss` in a run's metrics: consecutive windows of seq_len tokens from the first
token of the split, each without context from the previous ones. So the task reproduces the loss that the run
recorded for the same weights, and measures other checkpoints and corpora in the same way.
"""

import math

import numpy as np

from gptjax.data.corpus import mixture, reader
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult, score_with_journal
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.texts import sources
from gptjax.storage.files import access, hub_names, paths, run_config
from gptjax.text.words import plural

NO_CORPUS = ('no corpus with held-out text: write one with `gptjax prepare --tokenizer=FOLDER`, where FOLDER '
             'has the tokenizer of these weights, and give it as --config.data.corpus')


def corpora_to_read(config):
  """Return (((folder, weight), ...), tokens per window or 0) for the task to read.

  Args:
    config: unresolved. If it has no corpus, the corpora of the run whose checkpoint `config.init_from` is
      are used; released weights have none.
  """
  data, workdir = config.data.to_dict(), None
  if not data['corpus'] and not data['mixture']:
    candidates = ()
    if config.init_from and not hub_names.parse(config.init_from):
      path = paths.location(config.init_from)
      candidates = path, path.parent.parent
    workdir = next((folder for folder in candidates if folder.name and access.is_file(folder / 'config.json')
                    and access.is_folder(folder / 'checkpoints')), None)
    if workdir is None:
      return (), data['seq_len']
    stored, _ = run_config.read(workdir / 'config.json')
    data = {name: stored[f'data.{name}'] for name in ('corpus', 'mixture', 'seq_len')}
  def find(folder):
    # A corpus that was prepared in the workdir moves with it.
    location = paths.location(folder)
    moved = workdir and location.name == 'corpus' and not access.is_folder(location)
    return str(workdir / 'corpus') if moved else folder
  pairs = zip(*mixture.folders_and_weights(data), strict=True)
  corpora = tuple((find(folder), weight) for folder, weight in pairs)
  return corpora, config.data.seq_len or data['seq_len']


def read(data):
  """Return (tokens per window or 0, [(name, weight, Corpus)], limit) of all validation splits."""
  if not data.corpora:
    raise sources.NotRun(NO_CORPUS)
  splits, folders = [], [mixture.absolute(folder) for folder, _ in data.corpora]
  names = mixture.short_names(folders)
  for name, folder, (_, weight) in zip(names, folders, data.corpora, strict=True):
    if not access.is_folder(paths.parsed(folder)):
      raise sources.NotRun(f'corpus {folder} does not exist: set --config.data.corpus=FOLDER')
    try:
      corpus = reader.open_corpus(folder, 'validation', verify=True)
    except reader.MissingSplit as error:
      data.note(str(error))
      continue
    if corpus.n_tokens < 2:  # pretraining, too, ignores such a split
      data.note(f'corpus {folder} has {plural(corpus.n_tokens, "token")} held out, none of which can be '
                'predicted')
      continue
    splits.append((name, weight, corpus))
  if not splits:
    raise sources.NotRun(f'{", ".join(folders)}: no held-out text: prepare a corpus with '
                         '--validation_fraction')
  return data.seq_len, splits, data.limit


def evaluate(evaluated, examples):
  """Return the TaskResult: nats per token, perplexity and bits per byte."""
  seq_len, splits, limit = examples
  seq_len = min(seq_len or evaluated.model.n_ctx, evaluated.model.n_ctx)
  scored, metrics, means = [], {}, []
  for name, weight, corpus in splits:
    tokenizer = corpus.tokenizer
    if tokenizer['digest'] != evaluated.tokenizer.digest:
      raise sources.NotRun(f'corpus {corpus.folder} was prepared with the tokenizer {tokenizer["name"]} '
                           f'(digest {tokenizer["digest"][:12]}), these weights use another one '
                           f'({evaluated.tokenizer.digest[:12]}): prepare it again with theirs')
    requests = windows(corpus, seq_len, limit)
    scores = score_with_journal(evaluated, f'held_out {corpus.digest[:12]}, windows of {seq_len}', requests)
    n = sum(len(ids) - start for ids, start in requests)
    loss = -math.fsum(score.log_prob for score in scores) / n
    means.append((weight, loss, corpus.n_bytes / corpus.n_tokens, n))
    if len(splits) > 1:
      metrics[f'nats_per_token_{name}'] = loss
    scored += [{'text': evaluated.tokenizer.decode(ids[1:]), 'nats': -score.log_prob, 'tokens': len(ids) - 1}
               for (ids, _), score in zip(requests, scores, strict=True)]
  weights, losses, lengths, tokens = zip(*means, strict=True)
  loss, length = (float(np.average(values, weights=weights)) for values in (losses, lengths))
  metrics = {'nats_per_token': loss, 'perplexity': math.exp(min(loss, 700)),
             'bits_per_byte': loss / length / math.log(2), **metrics, 'tokens': sum(tokens),
             'examples': len(scored)}
  protocol = (f'Validation split of {", ".join(name for name, *_ in splits)}; windows of {seq_len} tokens, '
              'consecutive and each without context from the previous ones, as eval/loss of a run'
              + ('; of several corpora, the mean by their weights' if len(splits) > 1 else '')
              + '. Bits per byte: by the mean length of the tokens of the split.')
  return TaskResult(metrics, protocol, examples=tuple(scored))


def windows(corpus, seq_len, limit=0):
  """Return [Request] of the windows of a split, the first `limit` of them unless that is 0.

  A split that is shorter than a window is one window.
  """
  n = reader.n_windows(corpus, seq_len, True)
  if not n:
    return [Request(corpus.tokens(0, corpus.n_tokens), 1)]
  return [Request(corpus.tokens(i * seq_len, (i + 1) * seq_len + 1), 1) for i in range(min(n, limit or n))]


TASKS = Task('held_out', 'Held-out text of a corpus', read, evaluate),
