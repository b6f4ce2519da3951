"""How much of test sets is in a training corpus (GPT-2, section 4): 8-grams that they have in common.

    python -m gptjax.evaluate.overlap --train=corpora/webtext --workdir=runs/gpt2 \
        --test=wikitext2=text:wiki.test.tokens --own=wikitext2=text:wiki.train.tokens

prints the share of each test set's 8-grams that are also in its own training split and in the training
corpus, with the rate of false positives as it was measured, and writes WORKDIR/overlap.json; what was found
in each document stands in WORKDIR/overlap/NAME.jsonl. A source is KIND:WHERE as for gptjax.data.prepare, or
the folder of a corpus (its split train; of --test, its split validation). A filter that is in
WORKDIR/overlap, or in --filters, is used again; one that is half built is gone on with. Filters of parts of
a corpus that were built elsewhere, with one --capacity and --rate, are merged: --filter=A --filter=B.

Where WORKDIR is that of an evaluation, the examples of its tasks are looked up too, and their scores are
shown by how much of them was in the training corpus. What is looked up in a corpus of GPT-1's tokens goes
through its tokenizer first, which changes words.
"""

if __name__ == '__main__':
  from gptjax.command import startup
  from gptjax.parallel import jax_settings
  startup.begin('overlap', 'stopped; the same command continues where it was')
  jax_settings.begin('overlap')

import argparse
import os

from gptjax.command import run
from gptjax.command.flag_types import WORKERS, integer, real
from gptjax.evaluate.overlap.study import run_study
from gptjax.files import paths


def main(arguments):
  parser = run.Parser(prog='python -m gptjax.evaluate.overlap', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  several = {'action': 'append', 'default': []}
  add('--train', **several, help='source or corpus that the model was trained on; repeatable')
  add('--test', **several, help='NAME=SOURCE of a test set; repeatable')
  add('--own', **several, help='NAME=SOURCE of the training split of that test set; repeatable')
  add('--examples', **several, help='NAME=FILE.jsonl of examples that were scored, beside those of WORKDIR: '
      '{"text", "correct" | "nats" | ...} a line; repeatable')
  add('--filter', **several, help='filter built before, of the training corpus; repeatable')
  add('--workdir', type=paths.flag, required=True, help='where overlap.json goes')
  add('--filters', type=paths.flag, default='', help='folder of filters; default WORKDIR/overlap')
  add('--rate', type=real(1e-15, 0.5), default=1e-8, help='false positives, at most (default 1e-8)')
  add('--capacity', type=integer(0, 2**50), default=0,
      help='8-grams that filters are made for, so that they can be merged')
  add('--strings', type=integer(1, 10**10), default=10_000_000,
      help='made-up 8-grams to look up (default 10,000,000)')
  add('--workers', type=integer(1, WORKERS), default=len(os.sched_getaffinity(0)),
      help='processes (default: one a core)')
  add('--tfds_dir', type=paths.flag, default='', help='where tfds: finds its data sets')
  add('--on_error', default='stop', choices=('stop', 'skip'), help='at a document that cannot be used')
  add('--document_separator', dest='separator', default='',
      help=r'between documents in a file of text: (\n and \t are understood)')
  flags = parser.parse_args(arguments)
  flags.separator = flags.separator.replace('\\n', '\n').replace('\\t', '\t')
  run_study(flags)


if __name__ == '__main__':
  run.run(main, 'overlap')
