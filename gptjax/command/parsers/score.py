"""The flags of gptjax.evaluate.score."""

from gptjax.command.flag_types import integer
from gptjax.command.run import Parser
from gptjax.storage.files import hub_names, paths

STRIDES, BATCH_SIZES = integer(1), integer(1, 1_000_000)
TABLE, JSON = 'table', 'json'


def parser():
  flags = Parser(prog='python -m gptjax.evaluate.score',
                 description='Prints log probability, perplexity and bits per byte of texts under a model.',
                 example='python -m gptjax.evaluate.score --from=gpt2 --format=json story.txt')
  add = flags.add_argument
  add('--from', dest='source', type=hub_names.flag, required=True, metavar='MODEL',
      help='a workdir, a checkpoint, a folder of released weights, or a name on the Hugging Face Hub')
  add('files', nargs='*', metavar='FILE', help='file of text in UTF-8, which is one text; -: stdin')
  add('--text', action='append', default=[], help='a text to score; repeatable')
  add('--lines', action='store_true', help='each line of a file that is not empty is a text')
  add('--format', choices=[TABLE, JSON], default=TABLE,
      help='table: a line per text; json: JSON lines, with the log probability of each token (table)')
  add('--stride', type=STRIDES, help='tokens by which the windows of a long text advance (half the context)')
  add('--batch_size', type=BATCH_SIZES,
      help='sequences of full length per batch (8,192 tokens per device, 1,024 on CPUs)')
  add('--special_tokens', action='append', default=[], metavar='NAME',
      help='a special token that a text may contain, or all; repeatable; default: none')
  add('--compilation_cache', type=paths.flag, default=None,
      help="private folder that caches compiled programs between calls; '': no cache")
  return flags
