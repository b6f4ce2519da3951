"""The flags of gptjax.pretrained, whose first argument is `export` or `import`."""

import argparse

from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import hub_names, paths

EXPORT, IMPORT = 'export', 'import'


def action(arguments):
  """Return which of the two the arguments ask for."""
  return IMPORT if arguments[:1] == [IMPORT] else EXPORT


def parser(name=EXPORT):
  return _import() if name == IMPORT else _export()


def _export():
  flags = _parser(EXPORT, 'Exports weights and their tokenizer as a folder for transformers.',
                  '--from=runs/mine --to=mine-hf')
  flags.add_argument('--from', dest='source', type=hub_names.flag, required=True,
                     help='a workdir, a checkpoint, a Hugging Face folder, a name on the Hugging Face Hub, '
                     "or OpenAI's files")
  flags.add_argument('--to', type=paths.bucket_flag, required=True,
                     help='folder to write for transformers, here or in a bucket')
  return flags


def _import():
  flags = _parser(IMPORT, docstring('pretrained/importing.py'), 'ckpt.pt imported --tokenizer=gpt2')
  add = flags.add_argument
  add('source', metavar='SOURCE', type=paths.bucket_flag, help='the file, or its folder; here or in a bucket')
  add('out', metavar='OUT', type=paths.bucket_flag, help='new folder to write, here or in a bucket')
  add('--tokenizer', default='',
      help='the tokenizer of the model: gpt2, gpt2:DIR, bpe:DIR, char:DIR, gpt1:DIR, sentencepiece:FILE or a '
           'folder; default: that of the folder of transformers, else none')
  add('--activation_function', choices=('gelu', 'gelu_new'), default='',
      help='of a checkpoint of nanoGPT: gelu_new if its model.py is from before 2023-05-17; default: gelu, '
           'but gelu_new if the checkpoint is so old that it has no option `bias`')
  return flags


def _parser(name, description, arguments):
  prog = f'python -m gptjax.pretrained {name}'
  flags = Parser(prog=prog, description=description, example=f'{prog} {arguments}')
  flags.add_argument('action', choices=[name], help=argparse.SUPPRESS)  # shown as a part of the command
  return flags
