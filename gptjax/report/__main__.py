"""The command: python -m gptjax.report --workdir=runs/gpt2_small [--workdir=runs/gpt2_medium ...]"""

from gptjax.command import run
from gptjax.command.parsers.report import parser
from gptjax.evaluate.samples import public_texts
from gptjax.report import page, samples


def main(arguments):
  flags = parser().parse_args(arguments)
  prompts = flags.prompt or [public_texts.UNICORNS]
  for workdir in flags.workdir if flags.samples else ():
    samples.write(workdir, prompts, flags.samples, flags.sample_tokens, flags.seed)
  for path in page.write(flags.workdir, flags.out or flags.workdir[0]):
    print(path)


if __name__ == '__main__':
  run.run(main, 'report')
