"""Progress is shown in one way: a bar of `gptjax.command.bars` on a terminal, rare lines elsewhere."""

import io
import re
import sys

import pytest
from conftest import ROOT

from gptjax.command import bars
from gptjax.report import telemetry

BAR = r'reading: +\d+%\|.*\| \d/4 \[\d\d:\d\d<\S+, .+\]'  # share, bar, count, time, time left, rate


class Terminal(io.StringIO):
  """A stream that says that it is a terminal."""

  def isatty(self):
    return True


def test_only_one_module_makes_bars():
  made = {path.name for path in (ROOT / 'gptjax').rglob('*.py')
          if re.search(r'\btqdm\((?!RE)|\btqdm\.auto|\btrange\(', path.read_text())}
  assert made == {'bars.py'}


def test_a_terminal_shows_bar_rate_and_time_left(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', said := Terminal())
  with bars.bar(total=4, desc='reading', unit='text', mininterval=0) as bar:
    for _ in range(4):
      bar.update()
  shown = [one for one in said.getvalue().split('\r') if one.strip()]
  assert len(shown) >= 4
  for one in shown:
    assert re.fullmatch(BAR, one.strip()), one


@pytest.mark.parametrize('stream, shows', [(Terminal, True), (io.StringIO, False)])
def test_a_run_has_a_bar_on_a_terminal_alone(stream, shows, monkeypatch, tmp_path):
  monkeypatch.setattr(sys, 'stderr', said := stream())
  log = telemetry.Telemetry(tmp_path, 4, tensorboard=False)
  log.begin(0)
  for step in (1, 2):
    log.bar.mininterval = 0
    log.progress(step, f'loss {step}  7 tokens/s  0:01 left')
  log.close()
  written = said.getvalue()
  assert ('\r' in written) == shows and 'loss 2  7 tokens/s  0:01 left' in written
  if not shows:
    assert written == 'step 1/4  loss 1  7 tokens/s  0:01 left\nstep 2/4  loss 2  7 tokens/s  0:01 left\n'


def test_hidden_progress_writes_nothing(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', said := Terminal())
  assert list(bars.bar(range(3), shown=False)) == [0, 1, 2]
  assert said.getvalue() == ''
