"""Held-out loss of recipes at equal tokens, with their seeds' spread: python -m gptjax.benchmark recipes

Each run is a pretraining job of its own, in a workdir under --workdir; one that is finished is not repeated,
one that was cut off goes on. Each recipe first gets the learning rate that is best for it, of --rates, with a
seed that does not count afterwards.
"""

import argparse
import hashlib
import itertools
import statistics
from pathlib import Path

from gptjax import defaults
from gptjax.benchmark import results
from gptjax.benchmark.machine import machine_info
from gptjax.command import figures
from gptjax.command import run as command
from gptjax.command.flag_types import Listed, integer, real
from gptjax.files import paths
from gptjax.parallel import jax_settings

# What each sets in config.optimizer; the rest is the default: AdamW with GPT-2's usual constants, cosine.
RECIPES = {'adamw': {}, 'muon': {'name': 'muon'}, 'wsd': {'schedule': 'wsd'}}
LABELS = {'adamw': 'AdamW, cosine (as in the paper)', 'muon': 'Muon, cosine',
         'wsd': 'AdamW, warm-up-stable-decay'}
BASELINE = 'adamw'  # what the others are compared with
TUNING_SEED = 1000  # the seed of the runs that choose the learning rates
MODEL = dict(n_layer=3, n_head=4, n_embd=128, n_ctx=128, n_vocab=2048, scan=False)


def make_config(flags, recipe, rate, seed):
  config = defaults.get_config()
  config.model.update(MODEL)
  config.data.update(dict(corpus=f'{flags.workdir}/corpus', source=flags.source, validation_fraction=0.02,
                          tokenizer=f'train-bpe:{MODEL["n_vocab"]}'))
  config.train.update(dict(steps=flags.steps, batch_size=flags.batch_size, seed=seed))
  config.optimizer.update({'learning_rate': rate, 'warmup_steps': flags.steps // 10, **RECIPES[recipe]})
  config.loss.chunk = 32
  config.eval.update(dict(every_steps=max(flags.steps // 4, 1), steps=flags.eval_steps))
  config.checkpoint.update(dict(every_steps=0, keep=1, keep_best=0))
  config.log.update(dict(tensorboard=False, every_steps=max(flags.steps // 4, 1)))
  return config


def run(flags, recipe, rate, seed):
  """Trains, or reads what an earlier run has left.

  Returns:
    {'loss': held out at the end, 'seconds': in steps, 'curve': [(tokens, held-out loss)]}; None if told to
    stop.
  """
  from gptjax.pretrain.loop import DONE, pretrain
  from gptjax.report import telemetry
  config = make_config(flags, recipe, rate, seed)
  same = hashlib.sha256(config.to_json(sort_keys=True).encode()).hexdigest()[:8]
  workdir = Path(flags.workdir) / f'{recipe}-{rate:g}-{seed}-{same}'
  finished = lambda: [(record['step'], record['eval/loss']) for record in
                      telemetry.read_metrics(workdir / 'metrics.jsonl') if 'eval/loss' in record]
  if (not finished() or finished()[-1][0] != flags.steps) and pretrain(config, str(workdir)) != DONE:
    return None
  seconds = max(record.get('time/steps', 0) for record in telemetry.read_metrics(workdir / 'metrics.jsonl'))
  tokens = config.train.batch_size * MODEL['n_ctx']
  return {'loss': finished()[-1][1], 'seconds': seconds,
          'curve': [(step * tokens, loss) for step, loss in finished()]}


def compare_recipes(losses):
  """[{'of', 'against', 'difference', 'spread', 'exceeds'}] for each pair of recipes.

  A difference of means counts if it is more than what seeds alone change: the wider of the two recipes'
  ranges, from their best seed to their worst.

  Args:
    losses: {recipe: [held-out loss of each seed]}.
  """
  found = []
  for one, other in itertools.combinations(losses, 2):
    difference = statistics.mean(losses[other]) - statistics.mean(losses[one])
    spread = max(max(values) - min(values) for values in (losses[one], losses[other]))
    found.append({'of': other, 'against': one, 'difference': difference, 'spread': spread,
                  'exceeds': abs(difference) > spread})
  return found


def format_verdict(verdict):
  word = 'lower' if verdict['difference'] < 0 else 'higher'
  judged = 'more than' if verdict['exceeds'] else 'NOT more than'
  return (f'{LABELS[verdict["of"]]}: {abs(verdict["difference"]):.4f} nats {word} than '
          f'{LABELS[verdict["against"]]}, {judged} the {verdict["spread"]:.4f} over which seeds spread')


def plot(runs, path):
  """Held-out loss against tokens, the range of the seeds as a band; and where each seed ends."""
  figure, (curve, ends) = figures.figure(1, 2, (10, 4))
  for place, (recipe, found) in enumerate(runs.items()):
    tokens = [point[0] for point in found[0]['curve']]
    losses = list(zip(*([loss for _, loss in seed['curve']] for seed in found), strict=True))
    line, = curve.plot(tokens, [statistics.mean(at) for at in losses], marker='o', label=LABELS[recipe])
    curve.fill_between(tokens, [min(at) for at in losses], [max(at) for at in losses], alpha=0.2)
    ends.plot([place] * len(found), [seed['loss'] for seed in found], 'o', color=line.get_color())
    ends.plot([place], [statistics.mean(seed['loss'] for seed in found)], '_', markersize=30,
              color=line.get_color())
  curve.set(xlabel='tokens', ylabel='held-out loss, nats a token')
  curve.legend()
  ends.set(xticks=range(len(runs)), xticklabels=runs, xlim=(-0.5, len(runs) - 0.5),
           ylabel='held-out loss at the end, each seed')
  figure.savefig(path, dpi=120)


def parse_flags(argv):
  parser = command.Parser(prog='python -m gptjax.benchmark recipes', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--source', required=True, help='text to train on: jsonl:books.jsonl.gz')
  parser.add_argument('--workdir', type=paths.flag, default='runs/recipes',
                      help='folder of the corpus and of the runs')
  parser.add_argument('--steps', type=integer(1), default=400, help='updates of each run')
  parser.add_argument('--batch_size', type=integer(1, 65536), default=8,
                      help='sequences of 128 tokens an update')
  parser.add_argument('--eval_steps', type=integer(1), default=40, help='batches held out')
  parser.add_argument('--seeds', type=integer(1, 1000), default=3)
  parser.add_argument('--rates', type=Listed(real(1e-9, 1)),
                      default=[2e-3, 4e-3, 8e-3, 1.6e-2], help='learning rates to choose from')
  parser.add_argument('--out', type=paths.flag, default='',
                      help='JSON file for the results; the picture goes beside it')
  return parser.parse_args(argv)


def choose_rates(flags):
  """{recipe: {rate: held-out loss of the seed that does not count}}; None if told to stop."""
  tried = {recipe: {} for recipe in RECIPES}
  for recipe, rate in itertools.product(RECIPES, flags.rates):
    found = run(flags, recipe, rate, TUNING_SEED)
    if found is None:
      return None
    tried[recipe][rate] = found['loss']
  return tried


def main(argv):
  flags = parse_flags(argv)
  jax_settings.use_cache(jax_settings.cache_folder(defaults.fields()['compilation_cache']))
  return measure(flags)


def measure(flags):
  from gptjax.pretrain.loop import STOPPED
  tried = choose_rates(flags)
  if tried is None:
    return STOPPED
  rates = {recipe: min(losses, key=losses.get) for recipe, losses in tried.items()}
  runs = {recipe: [] for recipe in RECIPES}
  for seed, recipe in itertools.product(range(flags.seeds), RECIPES):
    found = run(flags, recipe, rates[recipe], seed)
    if found is None:
      return STOPPED
    runs[recipe].append(found)
  return report(flags, tried, rates, runs)


def report(flags, tried, rates, runs):
  """Prints the table and the verdicts, writes JSON and picture."""
  where = machine_info(('jax', 'jaxlib', 'flax', 'optax'))
  tokens = runs[BASELINE][0]['curve'][-1][0]
  losses = {recipe: [seed['loss'] for seed in found] for recipe, found in runs.items()}
  print(f'{MODEL["n_layer"]} layers x {MODEL["n_embd"]}, vocabulary {MODEL["n_vocab"]}, {tokens:,} tokens, '
        f'{flags.seeds} seeds; {where["cores"]} cores of {where["processor"]}, {where["date"]}\n\n'
        f'{"held-out loss, nats a token":<34}{"mean":>9}{"least":>9}{"most":>9}{"rate":>9}{"seconds":>9}')
  for recipe, values in losses.items():
    seconds = statistics.median(seed['seconds'] for seed in runs[recipe])
    print(f'{LABELS[recipe]:<34}{statistics.mean(values):>9.4f}{min(values):>9.4f}{max(values):>9.4f}'
          f'{rates[recipe]:>9g}{seconds:>9.1f}')
  found = compare_recipes(losses)
  print('', *map(format_verdict, found), '', 'rates tried, seed of their own (the least is taken):', sep='\n')
  for recipe, values in tried.items():
    edge = len(values) > 1 and rates[recipe] in (min(values), max(values))
    print(f'{LABELS[recipe]:<34}' + '  '.join(f'{rate:g}: {loss:.4f}' for rate, loss in values.items())
          + ('   (the best is the last one tried)' if edge else ''))
  what = f'held-out loss after {tokens / 1e6:.2f} M tokens'
  rows = [results.row(what, LABELS[recipe], 'nats/token', values) for recipe, values in losses.items()]
  results.write(flags.out, 'recipes', where, rows, model=MODEL, tokens=tokens, rates=rates, tried=tried,
                runs=runs, verdicts=found)
  if flags.out:
    plot(runs, f'{flags.out.removesuffix(".json")}.png')
  return 0
