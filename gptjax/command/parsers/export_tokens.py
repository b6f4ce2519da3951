"""The flags of gptjax.data.export."""

from gptjax.command.flag_types import integer
from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths

SHARD_TOKENS = 100_000_000  # as llm.c's scripts
SHARD_SIZES = integer(2, (1 << 31) - 1)  # llm.c counts in int32
LAYOUTS = 'llmc', 'nanogpt'


def parser():
  flags = Parser(prog='python -m gptjax.data.export', description=docstring('data/export.py'),
                 example='python -m gptjax.data.export --from=corpora/books --to=llmc --out=books-llmc')
  add = flags.add_argument
  add('--from', dest='source', type=paths.bucket_flag, required=True, help='folder of the corpus')
  add('--to', choices=LAYOUTS, required=True, help='whose layout')
  add('--out', type=paths.bucket_flag, required=True, help='folder to write, here or in a bucket')
  add('--shard_tokens', type=SHARD_SIZES, default=SHARD_TOKENS,
      help=f'tokens of a shard of llmc (default {SHARD_TOKENS:,})')
  add('--name', default='tokens', help='beginning of the names of the shards of llmc (default tokens)')
  return flags
