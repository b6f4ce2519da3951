"""The flags of gptjax.report."""

from gptjax.command.flag_types import SEED, integer
from gptjax.command.run import Parser
from gptjax.storage.files import paths


def parser():
  flags = Parser(prog='python -m gptjax.report',
                 description='Writes report.html and report.md: curves, tables and samples of one or several '
                 'runs.',
                 example='python -m gptjax.report --workdir=runs/gpt2_small --workdir=runs/gpt2_medium')
  add = flags.add_argument
  add('--workdir', type=paths.bucket_flag, action='append', required=True,
      help='of a run, any job; repeatable')
  add('--out', type=paths.bucket_flag, default='', help='folder of the report; default: the first workdir')
  add('--samples', type=integer(0, 10_000), default=0,
      help='first write this many samples of each kind by each model '
      '(top-k 40; saved in WORKDIR/samples.json for later reports)')
  add('--prompt', action='append', help="of conditional samples; repeatable; default: that of the paper's "
      'Table 13')
  add('--sample_tokens', type=integer(1), default=256, help='maximum tokens of a sample (default 256)')
  add('--seed', type=integer(0, SEED), default=0, help='of the samples (default 0)')
  return flags
