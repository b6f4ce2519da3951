"""Prints a script that completes the sub-commands and flags of `gptjax` in a shell: gptjax completion bash

The script is static, so completion starts no Python. It needs shtab: pip install 'gptjax[completion]'
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('completion', 'stopped', stdout_is_result=True)

from gptjax.cli.commands import ALIASES, COMMANDS
from gptjax.cli.commands import parser as parser_of
from gptjax.command import early, run
from gptjax.command.parsers import docstring
from gptjax.errors import InputError

SHELLS = 'bash', 'zsh', 'tcsh'
WHERE = """gptjax completion bash > ~/.local/share/bash-completion/completions/gptjax
gptjax completion zsh > "${fpath[1]}/_gptjax"
gptjax completion tcsh > ~/.gptjax.completion && echo 'source ~/.gptjax.completion' >> ~/.tcshrc"""


def parser():
  """Return the parser of this command."""
  flags = run.Parser(prog='gptjax completion', description=docstring('cli/completion.py'), example=WHERE)
  flags.add_argument('shell', choices=SHELLS)
  return flags


def whole_parser():
  """Return a parser with all sub-commands and their flags."""
  whole = run.Parser(prog='gptjax', description='GPT-1 and GPT-2 in JAX')
  commands = whole.add_subparsers(dest='command')
  for name in [*COMMANDS, *ALIASES]:
    command = COMMANDS[ALIASES.get(name, name)]
    try:
      one = parser_of(ALIASES.get(name, name))
    except ModuleNotFoundError:  # of a command that this version does not have
      continue
    added = commands.add_parser(name, help=command.purpose, prog=f'gptjax {name}', add_help=False)
    for action in one._actions:
      if name != 'export' or action.dest != 'action':  # which the sub-command adds itself
        added._add_action(action)
  return whole


def main(arguments):
  flags = parser().parse_args(arguments)
  try:
    import shtab
  except ModuleNotFoundError:
    raise InputError("shtab is not installed: pip install 'gptjax[completion]'") from None
  print(shtab.complete(whole_parser(), flags.shell))


if __name__ == '__main__':
  early.handle_help(parser, 'completion')
  run.run(main, 'completion')
