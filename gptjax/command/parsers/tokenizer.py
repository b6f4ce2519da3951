"""The flags of gptjax.data.tokenizers, which has one action, `train`."""

from gptjax.command.flag_types import integer
from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths

VOCAB_SIZES = integer(1, 2**24)


def parser():
  flags = Parser(prog='python -m gptjax.data.tokenizers',
                 description=docstring('data/tokenizers/__main__.py').partition('\n')[0],
                 example='python -m gptjax.data.tokenizers train --kind=bpe --vocab_size=8192 '
                 '--source=text:FILE --out=DIR')
  flags.add_argument('action', choices=['train'], help='what to do')
  flags.add_argument('--kind', required=True, help='bpe, char or sentencepiece')
  flags.add_argument('--vocab_size', type=VOCAB_SIZES,
                     help='number of entries; not of char, whose entries are the characters of the text')
  flags.add_argument('--source', action='append', required=True, help='KIND:WHERE; repeatable')
  flags.add_argument('--out', type=paths.bucket_flag, required=True, help='folder for the tokenizer')
  flags.add_argument('--tfds_dir', type=paths.bucket_flag, default='',
                     help='folder of the data sets of tfds:')
  return flags
