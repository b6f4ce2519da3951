"""The command: python -m gptjax.report --workdir=runs/gpt2_small [--workdir=runs/gpt2_medium ...]"""

from gptjax.command import run
from gptjax.command.flag_types import SEED, integer
from gptjax.files import paths
from gptjax.report import page, published, samples


def main(arguments):
  parser = run.Parser(prog='python -m gptjax.report',
                          description='Writes report.html and report.md.')
  add = parser.add_argument
  add('--workdir', type=paths.flag, action='append', required=True, help='of a run, any job; repeatable')
  add('--out', type=paths.flag, default='', help='folder of the report; default: the first workdir')
  add('--samples', type=integer(0, 10_000), default=0,
      help='first write this many samples of each kind by each model '
      '(top-k 40; saved in WORKDIR/samples.json for later reports)')
  add('--prompt', action='append', help="of conditional samples; repeatable; default: that of the paper's "
      'Table 13')
  add('--sample_tokens', type=integer(1), default=256, help='maximum tokens of a sample (default 256)')
  add('--seed', type=integer(0, SEED), default=0, help='of the samples')
  flags = parser.parse_args(arguments)
  prompts = flags.prompt or [published.UNICORNS]
  for workdir in flags.workdir if flags.samples else ():
    samples.write(workdir, prompts, flags.samples, flags.sample_tokens, flags.seed)
  for path in page.write(flags.workdir, flags.out or flags.workdir[0]):
    print(path)


if __name__ == '__main__':
  run.run(main, 'report')
