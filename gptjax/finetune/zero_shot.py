"""Figure 2, right: GPT-1's heuristics on every checkpoint of pretraining runs, with no fine-tuning at all."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import gptjax
from gptjax import atomic, checkpoint, hosts, sharding
from gptjax import config as configs
from gptjax.evaluate import heuristics
from gptjax.finetune import examples, tasks
from gptjax.finetune.examples import Tfds
from gptjax.finetune.metrics import METRICS
from gptjax.model import in_dtype
from gptjax.pretrain import DONE, STOPPED
from gptjax.pretrained.workdir import CHECKPOINTS

ROUND, CHUNK = 16, 128  # tokens: lengths are padded to a multiple; positions whose logits are alive at a time
TRAIN = 1000            # sentences of CoLA from which the threshold is taken
POSSESSIVE = ('his', 'their', 'its', 'my', 'your')


@jax.jit
def token_logprobs(model, tokens):
  """float32[b, t - 1]: log p of each token but the first, given those before it."""
  tokens = jax.reshard(tokens, sharding.compute('batch', None))
  model = in_dtype(model, model.dtype)
  x, parts = model.features(tokens), []
  for start in range(0, tokens.shape[1] - 1, CHUNK):
    stop = min(start + CHUNK, tokens.shape[1] - 1)
    logits, wanted = model.logits(x[:, start:stop]), tokens[:, start + 1:stop + 1]
    picked = jnp.where(jnp.arange(logits.shape[-1]) == wanted[..., None], logits, 0).sum(-1)
    parts.append(picked - jax.nn.logsumexp(logits, -1))
  return jax.reshard(jnp.concatenate(parts, axis=1), jax.P())


def scorer(model, batch_size):
  """The function `score` that the heuristics need, for a model on the mesh that is set.

  A sequence that is too long for the model loses its beginning, and has no log-probabilities there.
  """
  def score(sequences):
    sequences = [ids[-model.n_ctx:] for ids in sequences]
    found, order = [None] * len(sequences), sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    for at in tqdm(range(0, len(order), batch_size), desc='scoring', unit='batch', leave=False, disable=None):
      rows = order[at:at + batch_size]
      longest = min(-(-len(sequences[rows[0]]) // ROUND) * ROUND, model.n_ctx)
      tokens = np.zeros((batch_size, longest), np.int32)
      for place, row in enumerate(rows):
        tokens[place, :len(sequences[row])] = sequences[row]
      for row, logp in zip(rows, np.asarray(token_logprobs(model, tokens))):
        found[row] = logp[:len(sequences[row]) - 1]
    return found
  return score


def study(config, workdir):
  """Scores every checkpoint of `init_from` and of `finetune.lstm_from`, both workdirs, and plots them.

  What is scored once is on record in WORKDIR/results.json, and not done again.

  Returns:
    Exit code: 0 or 75.
  """
  runs = {name: Path(folder) for name, folder in (('Transformer', config.init_from),
                                                  ('LSTM', config.finetune.lstm_from)) if folder}
  if not runs:
    raise ValueError('name workdirs of pretraining: --config.init_from=D, --config.finetune.lstm_from=D')
  for folder in runs.values():
    if not checkpoint.steps(folder / CHECKPOINTS):
      raise ValueError(f'{folder} is no workdir with checkpoints (keep them: --config.checkpoint.keep=1000)')
  configs.make_workdir(workdir)
  path, data = Path(workdir) / 'results.json', suites(config)
  found = json.loads(path.read_text())['study'] if path.exists() else {}
  with jax.set_mesh(sharding.make_mesh(config.mesh)), hosts.stop_signals() as stop:
    for name, folder in runs.items():
      of_run = found.setdefault(name, {})
      for step in checkpoint.steps(folder / CHECKPOINTS):
        if stop.asked():
          return STOPPED
        if str(step) not in of_run:
          of_run[str(step)] = measured(folder / CHECKPOINTS / str(step), data, config)
          if jax.process_index() == 0:
            atomic.write(path, json.dumps({'study': found}, indent=1))
            shown = '  '.join(f'{task} {value:.2f}' for task, value in of_run[str(step)].items())
            print(f'{name}, step {step}: {shown}', file=sys.stderr)
  if jax.process_index() == 0:
    print(f'results       {path}\nplot          {plot(workdir, found)}', file=sys.stderr)
  return DONE


def suites(config):
  """{heuristic: its examples}; a set that is not there is left out, and said."""
  limit = config.finetune.limit or None
  read = lambda name, source: examples.read(name, tasks.find(name), source, config, labelled=True)[0]
  def race():
    return [example for source in tasks.find('race').validation.values() for example in read('race', source)]
  found = {}
  for heuristic, load in (
      ('acceptability', lambda: (read('cola', Tfds('glue/cola', 'train'))[:TRAIN],
                                 read('cola', Tfds('glue/cola', 'validation'))[:limit])),
      ('sentiment', lambda: read('sst2', Tfds('glue/sst2', 'validation'))[:limit]),
      ('question answering', lambda: race()[:limit]),
      ('winograd', lambda: list(schemas(config))[:limit])):
    try:
      found[heuristic] = load()
    except ValueError as error:
      print(f'{heuristic} is left out: {error}', file=sys.stderr)
  if not found:
    raise ValueError('none of the four sets is there: see the lines above, and config.data.tfds_dir')
  return found


def schemas(config):
  """((before, [referent, referent], after), which) of the Winograd schemas that TFDS has (`wsc273`)."""
  for record in examples.records(Tfds('wsc273', 'test'), config, 'task wsc273, split test'):
    text, start, end = record['text'], record['pronoun_start'], record['pronoun_end']
    own = "'s" if record['pronoun_text'].lower() in POSSESSIVE else ''
    referents = [record[f'option{i}_normalized'] + own for i in (1, 2)]
    yield (text[:start], referents, text[end:]), record['label']


def measured(folder, data, config):
  """{heuristic: accuracy, or Matthews correlation, in per cent} of one checkpoint."""
  model, tokenizer = gptjax.load(folder)
  score = scorer(model, config.eval.batch_size or config.train.batch_size)
  start = () if tokenizer.end_of_text is None else (tokenizer.end_of_text,)
  found = {}
  for name, items in data.items():
    if name == 'acceptability':
      texts = ([e.texts[0] for e in split] for split in items)
      train, validation = (heuristics.acceptability(score, tokenizer.encode, some, start) for some in texts)
      true = [e.label for e in items[1]]
      predicted = validation > heuristics.threshold(train, [e.label for e in items[0]])
    elif name == 'sentiment':
      predicted = heuristics.sentiment(score, tokenizer.encode, [e.texts[0] for e in items], start)
      true = [e.label for e in items]
    elif name == 'question answering':
      triples = [(e.texts[0], e.texts[1], e.answers) for e in items]
      predicted = heuristics.question_answering(score, tokenizer.encode, triples, model.n_ctx, start)
      true = [e.label for e in items]
    else:
      predicted = heuristics.winograd(score, tokenizer.encode, [item for item, _ in items], start)
      true = [right for _, right in items]
    metric = METRICS['matthews' if name == 'acceptability' else 'accuracy']
    found[name] = metric(np.asarray(predicted), np.asarray(true))
  return found


def plot(workdir, found):
  """Relative performance against updates: the Transformer solid, the LSTM dashed, as in the figure."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  figure, axes = pyplot.subplots(figsize=(6, 4), layout='constrained')
  for name, style in (('Transformer', '-'), ('LSTM', '--')):
    steps = sorted(map(int, found.get(name, {})))
    for i, task in enumerate(heuristics.SCALES):
      points = [(step, heuristics.relative(task, found[name][str(step)][task])) for step in steps
                if task in found[name][str(step)]]
      if points:
        axes.plot(*zip(*points), style, color=f'C{i}', marker='.', label=f'{task}, {name}')
  axes.set(xscale='log', xlabel='pretraining updates', ylabel='relative performance (0 chance, 1 then best)')
  axes.axhline(0, color='gray', linewidth=0.5)
  axes.legend(fontsize=7)
  path = Path(workdir) / 'zero_shot.png'
  figure.savefig(path, dpi=120)
  pyplot.close(figure)
  return path
