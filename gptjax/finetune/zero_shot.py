"""Figure 2, right: GPT-1's heuristics on every checkpoint of pretraining runs, with no fine-tuning at all."""

import sys
from pathlib import Path

import jax
import numpy as np

import gptjax
from gptjax import atomic, checkpoint, console, figures, hosts, records, sharding, shutdown
from gptjax import config as configs
from gptjax.errors import InputError
from gptjax.evaluate import gpt1, heuristics
from gptjax.evaluate.subject import subject
from gptjax.finetune import examples, tasks
from gptjax.finetune.examples import Tfds
from gptjax.finetune.metrics import METRICS
from gptjax.pretrain import DONE
from gptjax.pretrained.workdir import CHECKPOINTS

TRAIN = 1000  # sentences of CoLA from which the threshold is taken
POSSESSIVE = ('his', 'their', 'its', 'my', 'your')


def study(config, workdir, given=()):
  """Scores every checkpoint of `init_from` and of `finetune.lstm_from`, both workdirs, and plots them.

  What is scored once is on record in WORKDIR/results.json, and not done again.

  Returns:
    Exit code: 0. A signal ends the process at once, with 75: the same command then continues.
  """
  del given  # no config is stored
  runs = {name: Path(folder) for name, folder in (('Transformer', config.init_from),
                                                  ('LSTM', config.finetune.lstm_from)) if folder}
  if not runs:
    raise InputError('config.init_from and config.finetune.lstm_from are empty: name workdirs of '
                     'pretraining, --config.init_from=runs/gpt1 --config.finetune.lstm_from=runs/gpt1_lstm')
  for folder in runs.values():
    if not checkpoint.steps(folder / CHECKPOINTS):
      raise InputError(f'{folder} is no workdir with checkpoints (keep them: --config.checkpoint.keep=1000)')
  configs.make_workdir(workdir)
  path, data = Path(workdir) / 'results.json', suites(config)
  before = hosts.told(lambda: records.read_or_discard(path, required=('study',)))
  found = before['study'] if before else {}
  shutdown.at_once('stopped, and the checkpoints scored so far are kept: the same command continues there')
  with jax.set_mesh(sharding.make_mesh(config.mesh)):
    for name, folder in runs.items():
      of_run = found.setdefault(name, {})
      for step in checkpoint.steps(folder / CHECKPOINTS):
        if str(step) not in of_run:
          of_run[str(step)] = measured(folder / CHECKPOINTS / str(step), data, config)
          if jax.process_index() == 0:
            atomic.write(path, records.text({'study': found}))
            shown = '  '.join(f'{task} {value:.2f}' for task, value in of_run[str(step)].items())
            print(f'{name}, step {step}: {shown}', file=sys.stderr)
  if jax.process_index() == 0:
    print(f'results       {path}', file=sys.stderr)
    with console.optional('the plot'):
      print(f'plot          {plot(workdir, found)}', file=sys.stderr)
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
    except InputError as error:
      print(f'{heuristic} is left out: {error}', file=sys.stderr)
  if not found:
    raise InputError('none of the four sets is there: see the lines above, and config.data.tfds_dir')
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
  batch_size = config.eval.batch_size or config.train.batch_size
  score, encode, start = gpt1.asked(subject(model, tokenizer, batch_size, show=True))
  found = {}
  for name, items in data.items():
    if name == 'acceptability':
      texts = ([e.texts[0] for e in split] for split in items)
      train, validation = (heuristics.acceptability(score, encode, some, start) for some in texts)
      true = [e.label for e in items[1]]
      predicted = validation > heuristics.threshold(train, [e.label for e in items[0]])
    elif name == 'sentiment':
      predicted = heuristics.sentiment(score, encode, [e.texts[0] for e in items], start)
      true = [e.label for e in items]
    elif name == 'question answering':
      triples = [(e.texts[0], e.texts[1], e.answers) for e in items]
      predicted = heuristics.question_answering(score, encode, triples, model.n_ctx, start)
      true = [e.label for e in items]
    else:
      predicted = heuristics.winograd(score, encode, [item for item, _ in items], start)
      true = [right for _, right in items]
    metric = METRICS['matthews' if name == 'acceptability' else 'accuracy']
    found[name] = metric(np.asarray(predicted), np.asarray(true))
  return found


def plot(workdir, found):
  """Relative performance against updates: the Transformer solid, the LSTM dashed, as in the figure."""
  figure, axes = figures.figure(1, 1, (6, 4))
  for name, style in (('Transformer', '-'), ('LSTM', '--')):
    steps = sorted(map(int, found.get(name, {})))
    for i, task in enumerate(heuristics.SCALES):
      points = [(step, heuristics.relative(task, found[name][str(step)][task])) for step in steps
                if task in found[name][str(step)]]
      if points:
        axes.plot(*zip(*points), style, color=f'C{i}', marker='.', label=f'{task}, {name}')
  axes.set(xscale='log', xlabel='pretraining updates', ylabel='relative performance (0 chance, 1 then best)')
  axes.axhline(0, color='gray', linewidth=0.5)
  axes.legend(fontsize=7, handlelength=4)
  path = Path(workdir) / 'zero_shot.png'
  figure.savefig(path, dpi=120)
  return path
