"""The flags of gptjax.data.inspect."""

from gptjax.command.flag_types import SEED, integer
from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths


def parser():
  flags = Parser(prog='python -m gptjax.data.inspect', description=docstring('data/inspect.py'),
                 example='python -m gptjax.data.inspect corpora/books', allow_abbrev=False)
  add = flags.add_argument
  add('corpus', type=paths.bucket_flag, nargs='*', help='folder of the corpus')
  add('--split', default='train', help='train (default) or validation')
  add('--png', type=paths.bucket_flag, help='also plot the document lengths to this file')
  add('--document', type=integer(0, 2**40), help='show this document, counted from 0')
  add('--step', type=integer(0), help='show the batch of this update, counted from 0')
  add('--workdir', type=paths.bucket_flag,
      help='workdir of a run: its config.json sets corpus, seed, batch_size and seq_len')
  add('--batch_size', type=integer(1), help='sequences per batch')
  add('--seq_len', type=integer(1), help='tokens per sequence')
  add('--seed', type=integer(0, SEED), help='seed of the data order (config.train.seed)')
  add('--cross_documents', choices=('true', 'false'),
      help='whether a sequence may span several documents')
  add('--shift_windows', choices=('true', 'false'), help='whether window offsets differ between epochs')
  add('--packing', choices=('true', 'false'),
      help='whether the documents of a sequence are kept apart; shows which one each token is in')
  add('--row', type=integer(0), help='show only this row of the batch, completely')
  add('--tokens', type=integer(1), default=64, help='tokens to show of a document or a row (default 64)')
  return flags
