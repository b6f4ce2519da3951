"""The flags of gptjax.finetune.glue."""

from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths


def parser():
  flags = Parser(prog='python -m gptjax.finetune.glue', description=docstring('finetune/glue.py'),
                 example='python -m gptjax.finetune.glue --workdir=runs/glue --out=submission')
  add = flags.add_argument
  add('--workdir', type=paths.bucket_flag, action='append', default=[],
      help='of a fine-tuning run with --predict; repeatable, each with other tasks')
  add('--out', type=paths.bucket_flag, default='', help='folder to write, here or in a bucket')
  add('--wnli', choices=('predicted', 'majority'), default='predicted',
      help='WNLI.tsv: predicted: of a workdir; majority: not_entailment for every example')
  add('--check', type=paths.bucket_flag, default='', help='only check this folder')
  return flags
