"""Held-out loss: the validation split of a prepared corpus, read as pretraining reads it.

The windows are those of `eval/loss` in a run's metrics: of seq_len tokens, one after the other from the first
token of the split, each with no context from before it. So the task finds the loss that the run has recorded
for the same weights, and measures other checkpoints and corpora in the same way.
"""

import math
import os
from pathlib import Path

import numpy as np

from gptjax.data.corpus import mixture, reader
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.scoring.subject import Found, Task, scored
from gptjax.evaluate.texts import sources
from gptjax.files import run_config
from gptjax.text.words import plural

ABSENT = ('no corpus to hold text out of: give --config.data.corpus=FOLDER, a folder that '
          'gptjax.data.prepare has made with the tokenizer of these weights')


def corpora_of(config):
  """(((folder, weight), ...), tokens of a window or 0) that the task is to read.

  Args:
    config: as written, before defaults are filled in. Where it names no corpus, those of the run whose
      checkpoint `config.init_from` is are taken; released weights have none.
  """
  data, root = config.data.to_dict(), None
  if not data['corpus'] and not data['mixture']:
    path = Path(config.init_from).expanduser().absolute()
    root = next((one for one in (path, path.parent.parent)
                 if (one / 'config.json').is_file() and (one / 'checkpoints').is_dir()), None)
    if root is None:
      return (), data['seq_len']
    stored, _ = run_config.read(root / 'config.json')
    data = {name: stored[f'data.{name}'] for name in ('corpus', 'mixture', 'seq_len')}
  pairs = zip(*mixture.folders_and_weights(data), strict=True)
  # A corpus that was prepared in the workdir has been moved with it.
  own = lambda folder: str(root / 'corpus') if root and Path(folder).name == 'corpus' else folder
  return tuple((folder if Path(folder).is_dir() else own(folder), weight) for folder, weight in pairs), (
    config.data.seq_len or data['seq_len'])


def read(data):
  """(tokens of a window or 0, [(name, weight, Corpus)]) of the validation splits that there are."""
  if not data.corpora:
    raise sources.NotRun(ABSENT)
  found, folders = [], [os.path.abspath(folder) for folder, _ in data.corpora]
  parent = os.path.commonpath([os.path.dirname(folder) for folder in folders])
  for folder, (_, weight) in zip(folders, data.corpora, strict=True):
    if not os.path.isdir(folder):
      raise sources.NotRun(f'corpus {folder} does not exist: give --config.data.corpus=FOLDER')
    try:
      corpus = reader.open_corpus(folder, 'validation', verify=True)
    except reader.MissingSplit as error:
      data.note(str(error))
      continue
    if corpus.n_tokens < 2:  # as pretraining, which takes it for no split
      data.note(f'corpus {folder} holds {plural(corpus.n_tokens, "token")} out, of which none can be '
                'predicted')
      continue
    found.append((os.path.relpath(folder, parent), weight, corpus))
  if not found:
    raise sources.NotRun(f'{", ".join(folders)}: no text is held out; prepare a corpus with a '
                         '--validation_fraction')
  return data.seq_len, found, data.limit


def evaluate(subject, examples):
  """Found: nats per token, perplexity and bits per byte."""
  seq_len, found, limit = examples
  seq_len = min(seq_len or subject.model.n_ctx, subject.model.n_ctx)
  kept, metrics, means = [], {}, []
  for name, weight, corpus in found:
    made = corpus.tokenizer
    if made['digest'] != subject.tokenizer.digest:
      raise sources.NotRun(f'corpus {corpus.folder} was made with the tokenizer {made["name"]} (digest '
                           f'{made["digest"][:12]}), these weights have another '
                           f'({subject.tokenizer.digest[:12]}): prepare it again with theirs')
    asked = windows(corpus, seq_len, limit)
    scores = scored(subject, f'held_out {corpus.digest[:12]}, windows of {seq_len}', asked)
    n = sum(len(ids) - start for ids, start in asked)
    loss = -math.fsum(score.total for score in scores) / n
    means.append((weight, loss, corpus.n_bytes / corpus.n_tokens, n))
    if len(found) > 1:
      metrics[f'nats_per_token_{name}'] = loss
    kept += [{'text': subject.tokenizer.decode(ids[1:]), 'nats': -score.total, 'tokens': len(ids) - 1}
             for (ids, _), score in zip(asked, scores, strict=True)]
  weights, losses, lengths, tokens = zip(*means, strict=True)
  loss, length = (float(np.average(values, weights=weights)) for values in (losses, lengths))
  metrics = {'nats_per_token': loss, 'perplexity': math.exp(min(loss, 700)),
             'bits_per_byte': loss / length / math.log(2), **metrics, 'tokens': sum(tokens),
             'examples': len(kept)}
  protocol = (f'Validation split of {", ".join(name for name, *_ in found)}; windows of {seq_len} tokens, '
              'one after the other and each with no context from before it, as eval/loss of a run'
              + ('; of several corpora, the mean by their weights' if len(found) > 1 else '')
              + '. Bits per byte: by the mean length of the tokens of the split.')
  return Found(metrics, protocol, examples=tuple(kept))


def windows(corpus, seq_len, limit=0):
  """[Request] of the windows of a split, the first `limit` of them if that is not 0.

  A split that is shorter than a window is one.
  """
  n = reader.n_windows(corpus, seq_len, True)
  if not n:
    return [Request(corpus.tokens(0, corpus.n_tokens), 1)]
  return [Request(corpus.tokens(i * seq_len, (i + 1) * seq_len + 1), 1) for i in range(min(n, limit or n))]


TASKS = Task('held_out', 'Held-out text of a corpus', read, evaluate),
