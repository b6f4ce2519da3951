"""The flags of gptjax.pretrained, which has one action, `export`."""

import argparse

from gptjax.command.run import Parser
from gptjax.storage.files import hub_names, paths


def parser():
  flags = Parser(prog='python -m gptjax.pretrained export',
                 description='Exports weights and their tokenizer as a folder for transformers.',
                 example='python -m gptjax.pretrained export --from=runs/mine --to=mine-hf')
  flags.add_argument('action', choices=['export'], help=argparse.SUPPRESS)  # shown as a part of the command
  flags.add_argument('--from', dest='source', type=hub_names.flag, required=True,
                     help='a workdir, a checkpoint, a Hugging Face folder, a name on the Hugging Face Hub, '
                     "or OpenAI's files")
  flags.add_argument('--to', type=paths.bucket_flag, required=True,
                     help='folder to write for transformers, here or in a bucket')
  return flags
