"""The command: python -m gptjax.benchmark [SUBJECT] [flags]; with flags alone the subject is `train`."""

import sys

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('gptjax.benchmark', 'stopped', stdout_is_result=sys.argv[1:2] == ['table'])

import importlib
import os
import signal

from gptjax.benchmark.interleave import end_with_parent
from gptjax.command import early, run, shutdown, spelling
from gptjax.command.parsers import docstring
from gptjax.errors import InputError
from gptjax.parallel import jax_settings
from gptjax.text import words

ELSEWHERE = ('gpu', 'hosts', 'prepare', 'table')  # which run commands, need no device, show results
SUBJECTS = ('train', 'finetune', 'data', 'prepare', 'generate', 'evaluate', 'core', 'overlap', 'scaling',
            'hosts', 'recipes', 'start', 'gpu', 'attention', 'check', 'variants', 'profile', 'clean',
            'near_duplicates', 'table')
# Which compute in this process and clean nothing up: a signal ends them at once, also in the compiler.
ALONE = ('attention', 'check', 'near_duplicates', 'scaling', 'variants')
PURPOSE = 'Measures speed, memory and accuracy on this machine, mostly beside PyTorch or another reference.'
EXAMPLE = 'python -m gptjax.benchmark train --contenders=gptjax --turns=3'


def help_text():
  """Return the help: all subjects, each with what it measures."""
  width = max(map(len, SUBJECTS)) + 2
  rows = [f'  {subject:<{width}}{summary(subject)}' for subject in SUBJECTS]
  return spelling.spelled('\n'.join([
    'usage: python -m gptjax.benchmark SUBJECT [--FLAG=VALUE ...]', '', PURPOSE, '', 'subjects:', *rows, '',
    'SUBJECT --help lists the flags of a subject. With flags alone the subject is `train`.', '', 'example:',
    f'  {EXAMPLE}'])) + '\n'


def summary(subject):
  """Return what a subject measures: the first sentence of its module, which is not imported."""
  folder = '' if subject in ELSEWHERE else 'subjects/'
  first = docstring(f'benchmark/{folder}{subject}.py').partition('\n\n')[0]
  return ' '.join(first.split()).partition(': python -m')[0]


def main(argv):
  early.print_version(argv)
  if argv and argv[0] in early.HELP:
    run.write_help(help_text(), sys.stdout)
    return 0
  if not argv:
    early.print_purpose(PURPOSE, EXAMPLE)
    raise InputError(f'no subject; the subjects are {", ".join(SUBJECTS)}')
  named = not argv[0].startswith('-')
  subject, flags = (argv[0], argv[1:]) if named else ('train', argv)
  if subject not in SUBJECTS:
    near = words.nearest_name(subject, SUBJECTS)
    raise InputError(f'unknown subject {subject!r}: '
                     + (f'did you mean {near}?' if near else f'use one of {", ".join(SUBJECTS)}'))
  if any(flag.partition('=')[0] == '--worker' for flag in flags):  # started by `interleave`
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGKILL))
  if not early.HELP & set(flags):  # JAX takes a second to import
    jax_settings.use_jax()
  folder = 'gptjax.benchmark' if subject in ELSEWHERE else 'gptjax.benchmark.subjects'
  module = importlib.import_module(f'{folder}.{subject}')
  if subject not in ALONE:
    shutdown.unwind_on_signal('terminating all processes that it started')
  return module.main(flags)


if __name__ == '__main__':
  run.run(main, 'gptjax.benchmark')
