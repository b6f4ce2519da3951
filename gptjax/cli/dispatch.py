"""The main function of `gptjax`: finds the sub-command and runs its module, as `python -m` would."""

import importlib.util
import runpy
import sys

from gptjax import errors
from gptjax.cli.commands import ALIASES, COMMANDS
from gptjax.command import early, run, spelling, startup
from gptjax.errors import InputError
from gptjax.text import text_checks, words

OTHER_NAMES = {'sample': 'generate', 'eval': 'evaluate', 'convert': 'export', 'tokenize': 'prepare'}
EXAMPLE = 'gptjax pretrain --config=quickstart --workdir=runs/quickstart'


def main():
  """Run the command line of the process; the console script `gptjax`."""
  arguments = sys.argv[1:]
  name = ALIASES.get(arguments[0], arguments[0]) if arguments else ''
  if name in COMMANDS:
    return run_command(name, arguments[1:])
  # Only here, because a sub-command chooses its own name and the product of its stdout.
  startup.begin('gptjax', 'stopped')
  text_checks.escape_output()
  early.print_version(arguments[:1])
  if not arguments or name == 'help' or name in (*early.HELP, '--helpfull'):
    run.write_help(overview(), sys.stdout)
    sys.stdout.flush()
    sys.exit(0 if arguments else errors.BAD_INPUT)
  sys.exit(errors.print_line(_unknown(name), 'gptjax'))


def run_command(name, arguments):
  """Run the module of a sub-command in this process.

  Args:
    name: a key of COMMANDS.
    arguments: of the user.
  """
  command = COMMANDS[name]
  if importlib.util.find_spec(command.module) is None:
    sys.exit(errors.print_line(InputError(f'{name} is not part of this version'), 'gptjax'))
  spelling.use_console_script(**{'main': name} if command.module == 'gptjax.main' else {})
  if error := _other_job(name, command, arguments):
    sys.exit(errors.print_line(error, 'gptjax'))
  # Packages look at this while they are imported, as under `python -m`.
  sys.argv = ['-m', *command.arguments, *arguments]
  runpy.run_module(command.module, run_name='__main__', alter_sys=True)


def overview():
  """Return the help of `gptjax`: all sub-commands."""
  text = ['usage: gptjax COMMAND [--FLAG=VALUE ...]', '',
          'GPT-1 and GPT-2 in JAX: pretraining, fine-tuning and zero-shot evaluation.']
  width = max(map(len, COMMANDS)) + 2
  for group in dict.fromkeys(command.group for command in COMMANDS.values()):
    text += ['', f'{group}:']
    for name, command in COMMANDS.items():
      if command.group == group:
        alias = f' (also: {command.alias})' if command.alias else ''
        text.append(f'  {name:<{width}}{command.purpose}{alias}')
  text += ['', '`gptjax COMMAND --help` lists the flags of a command, `gptjax --version` shows the version.',
           '`gptjax completion bash` (zsh, fish, tcsh) prints a script that completes commands and flags.',
           '', 'example:', f'  {EXAMPLE}']
  return '\n'.join(text) + '\n'


def _unknown(name):
  if name.startswith('-'):
    return InputError(f'{name} is not a flag of gptjax: begin with a command, as in {EXAMPLE}')
  if name in OTHER_NAMES:
    return InputError(f'unknown command {name!r}: did you mean {OTHER_NAMES[name]}?')
  known = [*COMMANDS, *ALIASES]
  return InputError(f'unknown command {name!r}{words.suggestion(name, known, "the commands are")}')


def _other_job(name, command, arguments):
  """An InputError if the user's --config.job contradicts the sub-command, or None."""
  for argument, following in zip(arguments, [*arguments[1:], '']):
    flag, _, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and '=' not in argument:
      value = following
    contradicts = flag == 'config.job' and f'--config.job={value}' not in command.arguments
    if contradicts and command.module == 'gptjax.main':
      return InputError(f'{argument} contradicts `gptjax {name}`: remove one of them')
  return None
