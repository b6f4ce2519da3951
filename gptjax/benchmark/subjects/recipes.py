"""The modern recipe compared with GPT-2 and AdamW, by loss: python -m gptjax.benchmark recipes

GPT-2 with AdamW trains on a number of tokens; the recipe of configs/modern.py then has a quarter, half and
all of its FLOPs, its tokens, and its time. Both have a tuned learning rate, chosen with a seed that is not
used afterwards. The recipe is also trained without each of its ingredients. Each run is recorded in a journal
in --workdir: run the same command again to continue an interrupted comparison.
"""

import argparse
import functools
import sys
from pathlib import Path

from gptjax import defaults
from gptjax.benchmark import results
from gptjax.benchmark.recipes.contenders import N_VOCAB, SIZES
from gptjax.command import run as command
from gptjax.command.flag_types import integer, real
from gptjax.command.shutdown import STOPPED
from gptjax.parallel import jax_settings
from gptjax.storage.files import paths

ENDS, INGREDIENTS = 'ends', 'ingredients'


def parse_flags(argv):
  """The parsed flags."""
  parser = command.Parser(prog='python -m gptjax.benchmark recipes', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--source', required=True, help='text to train on, like jsonl:books.jsonl.gz')
  parser.add_argument('--workdir', type=paths.flag, default='runs/recipes',
                      help='folder of the corpus and of the journal, runs.jsonl')
  parser.add_argument('--size', choices=SIZES, action='append', help='a size to compare; default: all')
  parser.add_argument('--only', choices=(ENDS, INGREDIENTS),
                      help='ingredients: the recipe without each, at the first size; ends: all else')
  parser.add_argument('--seeds', type=integer(1, 1000), default=3)
  parser.add_argument('--scale', type=real(0, 1e6, open_left=True), default=1.0, help='factor of all tokens')
  parser.add_argument('--eval_steps', type=integer(1), default=80, help='held-out batches of 8 sequences')
  parser.add_argument('--limit_s', type=real(0, 1e9), default=1e9,
                      help='seconds after which no further run starts')
  results.add_out(parser, '; the plot is written next to it')
  return parser.parse_args(argv)


def main(argv):
  flags = parse_flags(argv)
  jax_settings.use_cache(jax_settings.cache_folder(defaults.fields()['compilation_cache']))
  return measure(flags)


def measure(flags):
  """Run what is not in the journal, and report; returns the exit code."""
  from gptjax.benchmark.recipes import comparison, report, runs, training
  Path(flags.workdir).mkdir(parents=True, exist_ok=True)
  functions = (functools.partial(function, workdir=flags.workdir)
               for function in (training.train, training.step_times))
  measured = runs.Runs(Path(flags.workdir) / 'runs.jsonl', *functions, flags.limit_s)
  data = dict(corpus=f'{flags.workdir}/corpus', source=flags.source, validation_fraction=0.02,
              tokenizer=f'train-bpe:{N_VOCAB}')
  sizes = flags.size or list(SIZES)
  ends, without = {}, {}
  for size in sizes:
    bench = comparison.Bench(measured, size, flags.seeds, flags.scale, data, flags.eval_steps)
    if flags.only != INGREDIENTS:
      ends[size], = measured.attempt(comparison.compare_ends, bench) or [[]]
    if size == sizes[0] and flags.only != ENDS:
      without[size], = measured.attempt(comparison.compare_ingredients, bench) or [[]]
  ends, without = ({size: arms for size, arms in found.items() if arms} for found in (ends, without))
  if ends or without:
    report.report(ends, without, flags.out)
  if measured.incomplete:
    print(f'gptjax.benchmark: incomplete after {flags.limit_s:g} s: run the same command again to continue',
          file=sys.stderr)
    return STOPPED
  return 0
