"""Colours only on terminals, and not with NO_COLOR."""

import io
import os
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.command import colors, streams

ESCAPE = '\x1b'


def on_terminal(*arguments, **variables):
  """(exit code, what `python -m gptjax ARGUMENTS` writes to a terminal)."""
  ours, theirs = os.openpty()
  environment = {name: value for name, value in ENVIRONMENT.items() if name not in ('NO_COLOR', 'TERM')}
  with subprocess.Popen([sys.executable, '-m', 'gptjax', *arguments], cwd=ROOT, stdout=theirs, stderr=theirs,
                        env={**environment, 'TERM': 'xterm', **variables}) as process:
    os.close(theirs)
    written = b''
    while True:
      try:
        part = os.read(ours, 65536)
      except OSError:  # Linux's way to say that the other end is closed
        break
      if not part:
        break
      written += part
  os.close(ours)
  return process.returncode, written.decode().replace('\r\n', '\n')


@pytest.mark.parametrize('arguments', [['--help'], ['plan', '--help'], ['report', '--help']])
def test_headings_of_help_are_bold_on_a_terminal(arguments):
  code, said = on_terminal(*arguments)
  assert code == 0 and f'{ESCAPE}[1musage:{ESCAPE}[0m gptjax' in said and f'{ESCAPE}[1mexample:' in said


@pytest.mark.parametrize('variables', [{'NO_COLOR': '1'}, {'TERM': 'dumb'}])
def test_nothing_is_coloured_against_the_users_wish(variables):
  code, said = on_terminal('plan', '--help', **variables)
  assert code == 0 and ESCAPE not in said and 'usage: gptjax plan' in said


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_a_text_with_colours_passes_the_guard_and_others_do_not(monkeypatch):
  monkeypatch.setattr(colors, 'ALLOWED', True)
  terminal = Terminal()
  guarded = streams._GuardedStream(terminal, 'stderr')
  streams.write_colored(colors.colored('bad', guarded, 'yellow'), guarded)
  assert terminal.getvalue() == f'{ESCAPE}[33mbad{ESCAPE}[0m'
  guarded.write(f'{ESCAPE}[31m')
  assert terminal.getvalue().count(ESCAPE) == 2
  monkeypatch.setattr(colors, 'ALLOWED', False)
  assert colors.colored('bad', terminal, 'yellow') == 'bad'
  assert colors.colored('bad', io.StringIO(), 'yellow') == 'bad'


def test_a_warning_is_yellow_on_a_terminal_and_its_text_is_escaped(monkeypatch):
  monkeypatch.setattr(colors, 'ALLOWED', True)
  monkeypatch.setattr(sys, 'stderr', Terminal())
  streams.log(f'the plot failed {ESCAPE}[5m', warning=True)
  said = sys.stderr.getvalue()
  assert said.startswith(f'{ESCAPE}[33mthe plot failed ') and said.endswith(f'{ESCAPE}[0m\n')
  assert said.count(ESCAPE) == 2
