"""Prints a script that completes the sub-commands and flags of `gptjax` in a shell: gptjax completion bash

The script is static, so completion starts no Python. All shells but fish need shtab:
pip install 'gptjax[completion]'
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('completion', 'stopped', stdout_is_result=True)

from gptjax.cli.commands import ALIASES, COMMANDS
from gptjax.cli.commands import parser as parser_of
from gptjax.command import early, run
from gptjax.command.parsers import docstring
from gptjax.errors import InputError

SHELLS = 'bash', 'zsh', 'fish', 'tcsh'
WHERE = """gptjax completion bash > ~/.local/share/bash-completion/completions/gptjax
gptjax completion zsh > "${fpath[1]}/_gptjax"
gptjax completion fish > ~/.config/fish/completions/gptjax.fish
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


def fish_script():
  """Return the script for fish, which shtab does not know."""
  whole = whole_parser()
  commands, = (action for action in whole._actions if action.dest == 'command')
  purposes = {choice.dest: choice.help for choice in commands._choices_actions}
  lines = ['complete -c gptjax -n __fish_use_subcommand -f -l version -d "show the version"']
  for name, one in commands.choices.items():
    lines.append(f'complete -c gptjax -n __fish_use_subcommand -f -a {name} -d {_quoted(purposes[name])}')
    start = f"complete -c gptjax -n '__fish_seen_subcommand_from {name}'"
    for action in one._actions:
      values = f' -x -a {_quoted(" ".join(map(str, action.choices)))}' if action.choices else ''
      if not action.option_strings:
        lines += [f'{start}{values}'] if values else []
      for flag in action.option_strings:
        if flag.startswith('--'):
          takes = values or (' -r' if action.nargs != 0 else '')
          lines.append(f'{start} -l {flag[2:]}{takes} -d {_quoted(_summary(action))}')
  return '\n'.join(lines)


def _summary(action):
  """The start of the help of a flag, on one line."""
  return ' '.join((action.help or '').split()).partition(';')[0].replace('%%', '%')


def _quoted(text):
  """A text between single quotes, as fish reads it."""
  return "'" + text.replace('\\', '\\\\').replace("'", "\\'") + "'"


def main(arguments):
  flags = parser().parse_args(arguments)
  if flags.shell == 'fish':
    print(fish_script())
    return
  try:
    import shtab
  except ModuleNotFoundError:
    raise InputError("shtab is not installed: pip install 'gptjax[completion]'") from None
  print(shtab.complete(whole_parser(), flags.shell))


if __name__ == '__main__':
  early.handle_help(parser, 'completion')
  run.run(main, 'completion')
