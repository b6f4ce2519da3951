"""The overlap of test sets with a training corpus (GPT-2, section 4): the 8-grams that they have in common.

    python -m gptjax.evaluate.overlap --train=corpora/webtext --workdir=runs/gpt2 \
        --test=wikitext2=text:wiki.test.tokens --own=wikitext2=text:wiki.train.tokens

prints the share of each test set's 8-grams that are also in its own training split and in the training
corpus, with the measured rate of false positives, and writes WORKDIR/overlap.json; the counts of each
document are in WORKDIR/overlap/NAME.jsonl. A source is KIND:WHERE as for gptjax.data.prepare, or the folder
of a corpus (its split train; for --test its split validation). A filter in WORKDIR/overlap, or in --filters,
is reused; an incomplete one is resumed. Filters of parts of a corpus that were built elsewhere, with the same
--capacity and --rate, are merged: --filter=A --filter=B.

If WORKDIR is that of an evaluation, the examples of its tasks are looked up too, and their scores are shown
by overlap with the training corpus. Text that is looked up in a corpus of GPT-1's tokens goes through its
tokenizer first, which changes words.
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
  add('--examples', **several, help='NAME=FILE.jsonl of scored examples, in addition to those of WORKDIR: '
      'one {"text", "correct" | "nats" | ...} per line; repeatable')
  add('--filter', **several, help='existing filter of the training corpus; repeatable')
  add('--workdir', type=paths.flag, required=True, help='folder for overlap.json')
  add('--filters', type=paths.flag, default='', help='folder of filters; default WORKDIR/overlap')
  add('--rate', type=real(1e-15, 0.5), default=1e-8, help='maximum rate of false positives (default 1e-8)')
  add('--capacity', type=integer(0, 2**50), default=0,
      help='maximum number of 8-grams of a filter; equal for filters to merge')
  add('--strings', type=integer(1, 10**10), default=10_000_000,
      help='random 8-grams to look up (default 10,000,000)')
  add('--workers', type=integer(1, WORKERS), default=len(os.sched_getaffinity(0)),
      help='processes (default: one per core)')
  add('--tfds_dir', type=paths.flag, default='', help='folder of the data sets of tfds:')
  add('--on_error', default='stop', choices=('stop', 'skip'),
      help='what to do with a document that cannot be used')
  add('--document_separator', dest='separator', default='',
      help=r'separator of documents in a file of text: (\n and \t are escapes)')
  flags = parser.parse_args(arguments)
  flags.separator = flags.separator.replace('\\n', '\n').replace('\\t', '\t')
  run_study(flags)


if __name__ == '__main__':
  run.run(main, 'overlap')
