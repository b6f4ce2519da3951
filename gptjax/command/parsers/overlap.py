"""The flags of gptjax.evaluate.overlap."""

import os

from gptjax.command.flag_types import WORKERS, integer, real
from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths


def parser():
  flags = Parser(prog='python -m gptjax.evaluate.overlap',
                 description=docstring('evaluate/overlap/__main__.py'),
                 example='python -m gptjax.evaluate.overlap --train=corpora/webtext --workdir=runs/gpt2 '
                 '--test=wikitext2=text:wiki.test.tokens')
  add = flags.add_argument
  repeatable = {'action': 'append', 'default': []}
  add('--train', **repeatable, help='source or corpus that the model was trained on; repeatable')
  add('--test', **repeatable, help='NAME=SOURCE of a test set; repeatable')
  add('--own', **repeatable, help='NAME=SOURCE of the training split of that test set; repeatable')
  add('--examples', **repeatable, help='NAME=FILE.jsonl of scored examples, in addition to those of WORKDIR: '
      'one {"text", "correct" | "nats" | ...} per line; repeatable')
  add('--samples', **repeatable, help='NAME=FILE.jsonl of `gptjax samples contexts`: how much of the samples '
      'and of the real continuations is in the training corpus; repeatable')
  add('--filter', **repeatable, help='existing filter of the training corpus; repeatable')
  add('--workdir', type=paths.bucket_flag, required=True, help='folder for overlap.json')
  add('--method', choices=('bloom', 'exact'), default='bloom',
      help='bloom (default): a filter of the training text, as in the paper; exact: the 8-grams of the test '
           'sets are in memory, and the training text is read past them')
  add('--filters', type=paths.flag, default='',
      help='folder of filters, or of exact results; default WORKDIR/overlap')
  add('--rate', type=real(1e-15, 0.5), default=1e-8, help='maximum rate of false positives (default 1e-8)')
  add('--capacity', type=integer(0, 2**50), default=0,
      help='maximum number of 8-grams of a filter; equal for filters to merge')
  add('--strings', type=integer(1, 10**10), default=10_000_000,
      help='random 8-grams to look up (default 10,000,000)')
  add('--workers', type=integer(1, WORKERS), default=len(os.sched_getaffinity(0)),
      help='processes (default: one per core)')
  add('--stage', choices=('all', 'read', 'fill', 'report'), default='all',
      help='all (default), or one stage, of which this command runs its share')
  add('--task', type=integer(0), default=0, help='number of this share, from 0')
  add('--tasks', type=integer(1), default=1, help='number of shares of the stage (default 1)')
  add('--tfds_dir', type=paths.bucket_flag, default='', help='folder of the data sets of tfds:')
  add('--on_error', default='stop', choices=('stop', 'skip'),
      help='what to do with a document that cannot be used')
  add('--document_separator', dest='separator', default='',
      help=r'separator of documents in a file of text: (\n and \t are escapes)')
  return flags
