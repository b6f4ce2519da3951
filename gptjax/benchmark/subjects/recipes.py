"""Held-out loss of training recipes at equal tokens, over several seeds: python -m gptjax.benchmark recipes

Each run is a pretraining job in a workdir under --workdir: a finished run is not repeated, and an interrupted
run resumes. For each recipe the best learning rate of --rates is chosen first, with a seed that is not used
afterwards.
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
from gptjax.parallel import jax_settings
from gptjax.storage.files import paths

# Fields set in config.optimizer; all others have their defaults: AdamW with GPT-2's usual constants, cosine.
RECIPES = {'adamw': {}, 'muon': {'name': 'muon'}, 'wsd': {'schedule': 'wsd'}}
LABELS = {'adamw': 'AdamW, cosine (as in the paper)', 'muon': 'Muon, cosine',
          'wsd': 'AdamW, warm-up-stable-decay'}
BASELINE = 'adamw'
TUNING_SEED = 1000  # seed of the runs that choose the learning rates
MODEL = dict(n_layer=3, n_head=4, n_embd=128, n_ctx=128, n_vocab=2048, scan=False)


def make_config(flags, recipe, rate, seed):
  """The config of one run."""
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
  """Train, or read the results of an earlier run.

  Returns:
    {'loss': final held-out loss, 'seconds': time in steps, 'curve': [(tokens, held-out loss)]}; None if a
    signal has stopped the run.
  """
  from gptjax.pretrain.loop import DONE, pretrain
  from gptjax.report import telemetry
  config = make_config(flags, recipe, rate, seed)
  digest = hashlib.sha256(config.to_json(sort_keys=True).encode()).hexdigest()[:8]
  workdir = Path(flags.workdir) / f'{recipe}-{rate:g}-{seed}-{digest}'
  evaluations = lambda: [(record['step'], record['eval/loss']) for record in
                         telemetry.read_metrics(workdir / 'metrics.jsonl') if 'eval/loss' in record]
  if (not evaluations() or evaluations()[-1][0] != flags.steps) and pretrain(config, str(workdir)) != DONE:
    return None
  seconds = max(record.get('time/steps', 0) for record in telemetry.read_metrics(workdir / 'metrics.jsonl'))
  tokens = config.train.batch_size * MODEL['n_ctx']
  return {'loss': evaluations()[-1][1], 'seconds': seconds,
          'curve': [(step * tokens, loss) for step, loss in evaluations()]}


def compare_recipes(losses):
  """[{'of', 'against', 'difference', 'spread', 'exceeds'}] for each pair of recipes.

  A difference of means is significant if it exceeds the variation over seeds: the wider of the two recipes'
  ranges from the best seed to the worst.

  Args:
    losses: {recipe: [held-out loss of each seed]}.
  """
  verdicts = []
  for first, second in itertools.combinations(losses, 2):
    difference = statistics.mean(losses[second]) - statistics.mean(losses[first])
    spread = max(max(values) - min(values) for values in (losses[first], losses[second]))
    verdicts.append({'of': second, 'against': first, 'difference': difference, 'spread': spread,
                     'exceeds': abs(difference) > spread})
  return verdicts


def format_verdict(verdict):
  """A sentence that states a verdict."""
  direction = 'lower' if verdict['difference'] < 0 else 'higher'
  comparison = 'more than' if verdict['exceeds'] else 'NOT more than'
  return (f'{LABELS[verdict["of"]]}: {abs(verdict["difference"]):.4f} nats {direction} than '
          f'{LABELS[verdict["against"]]}, {comparison} the range {verdict["spread"]:.4f} over seeds')


def plot(runs, path):
  """Plot held-out loss against tokens, with a band over the seeds, and the final loss of each seed."""
  figure, (curve, final) = figures.figure(1, 2, (10, 4))
  for position, (recipe, seeds) in enumerate(runs.items()):
    tokens = [point[0] for point in seeds[0]['curve']]
    losses = list(zip(*([loss for _, loss in seed['curve']] for seed in seeds), strict=True))
    line, = curve.plot(tokens, list(map(statistics.mean, losses)), marker='o', label=LABELS[recipe])
    curve.fill_between(tokens, list(map(min, losses)), list(map(max, losses)), alpha=0.2)
    final.plot([position] * len(seeds), [seed['loss'] for seed in seeds], 'o', color=line.get_color())
    final.plot([position], [statistics.mean(seed['loss'] for seed in seeds)], '_', markersize=30,
               color=line.get_color())
  curve.set(xlabel='tokens', ylabel='held-out loss, nats per token')
  curve.legend()
  final.set(xticks=range(len(runs)), xticklabels=runs, xlim=(-0.5, len(runs) - 0.5),
            ylabel='final held-out loss of each seed')
  figure.savefig(path, dpi=120)


def parse_flags(argv):
  """The parsed flags."""
  parser = command.Parser(prog='python -m gptjax.benchmark recipes', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--source', required=True, help='text to train on, like jsonl:books.jsonl.gz')
  parser.add_argument('--workdir', type=paths.flag, default='runs/recipes',
                      help='folder of the corpus and of the runs')
  parser.add_argument('--steps', type=integer(1), default=400, help='updates of each run')
  parser.add_argument('--batch_size', type=integer(1, 65536), default=8,
                      help='sequences of 128 tokens per update')
  parser.add_argument('--eval_steps', type=integer(1), default=40, help='held-out batches per evaluation')
  parser.add_argument('--seeds', type=integer(1, 1000), default=3)
  parser.add_argument('--rates', type=Listed(real(1e-9, 1)),
                      default=[2e-3, 4e-3, 8e-3, 1.6e-2], help='learning rates to choose from')
  parser.add_argument('--out', type=paths.flag, default='',
                      help='JSON file for the results; the plot is written next to it')
  return parser.parse_args(argv)


def choose_rates(flags):
  """{recipe: {rate: held-out loss with the tuning seed}}; None if a signal has stopped a run."""
  tried = {recipe: {} for recipe in RECIPES}
  for recipe, rate in itertools.product(RECIPES, flags.rates):
    result = run(flags, recipe, rate, TUNING_SEED)
    if result is None:
      return None
    tried[recipe][rate] = result['loss']
  return tried


def main(argv):
  flags = parse_flags(argv)
  jax_settings.use_cache(jax_settings.cache_folder(defaults.fields()['compilation_cache']))
  return measure(flags)


def measure(flags):
  """Choose the rates, run all recipes and seeds, and report; returns the exit code."""
  from gptjax.pretrain.loop import STOPPED
  tried = choose_rates(flags)
  if tried is None:
    return STOPPED
  rates = {recipe: min(losses, key=losses.get) for recipe, losses in tried.items()}
  runs = {recipe: [] for recipe in RECIPES}
  for seed, recipe in itertools.product(range(flags.seeds), RECIPES):
    result = run(flags, recipe, rates[recipe], seed)
    if result is None:
      return STOPPED
    runs[recipe].append(result)
  return report(flags, tried, rates, runs)


def report(flags, tried, rates, runs):
  """Print the table and the verdicts, write the result file and the plot."""
  machine = machine_info(('jax', 'jaxlib', 'flax', 'optax'))
  tokens = runs[BASELINE][0]['curve'][-1][0]
  losses = {recipe: [seed['loss'] for seed in seeds] for recipe, seeds in runs.items()}
  print(f'{MODEL["n_layer"]} layers x {MODEL["n_embd"]}, vocabulary {MODEL["n_vocab"]}, {tokens:,} tokens, '
        f'{flags.seeds} seeds; {machine["cores"]} cores of {machine["processor"]}, {machine["date"]}\n\n'
        f'{"held-out loss, nats per token":<34}{"mean":>9}{"min":>9}{"max":>9}{"rate":>9}{"seconds":>9}')
  for recipe, values in losses.items():
    seconds = statistics.median(seed['seconds'] for seed in runs[recipe])
    print(f'{LABELS[recipe]:<34}{statistics.mean(values):>9.4f}{min(values):>9.4f}{max(values):>9.4f}'
          f'{rates[recipe]:>9g}{seconds:>9.1f}')
  verdicts = compare_recipes(losses)
  print('', *map(format_verdict, verdicts), '',
        'learning rates tried, with a separate seed (the best is used):', sep='\n')
  for recipe, values in tried.items():
    edge = len(values) > 1 and rates[recipe] in (min(values), max(values))
    print(f'{LABELS[recipe]:<34}' + '  '.join(f'{rate:g}: {loss:.4f}' for rate, loss in values.items())
          + ('   (the best rate is at the edge of the range)' if edge else ''))
  what = f'held-out loss after {tokens / 1e6:.2f} M tokens'
  rows = [results.row(what, LABELS[recipe], 'nats/token', values) for recipe, values in losses.items()]
  results.write(flags.out, 'recipes', machine, rows, model=MODEL, tokens=tokens, rates=rates, tried=tried,
                runs=runs, verdicts=verdicts)
  if flags.out:
    plot(runs, f'{flags.out.removesuffix(".json")}.png')
  return 0
