"""Work that the end of a process does not wait for."""

import subprocess
import sys
import threading

import pytest
from conftest import ENVIRONMENT, ROOT, command

from gptjax.command import background

# A run whose state cannot be made, while its step compiles for longer than a test lasts.
FAILING = '''
import atexit, hashlib, runpy, sys
import jax
from gptjax.pretrain import loop
from gptjax.errors import InputError
def fail(*args):
  raise ERROR
loop.initial_state = fail
jax.stages.Lowered.compile = lambda *args, **options: hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
atexit.register(print, 'Python ends while the thread still runs')
runpy.run_module('gptjax.main', run_name='__main__', alter_sys=True)
'''


def test_result_and_error_arrive_and_the_work_is_then_finished():
  began, go_on = threading.Event(), threading.Event()
  future = background.submit(lambda value: began.set() or (go_on.wait() and value), 7)
  assert began.wait(60) and background.unfinished() and not future.done()
  go_on.set()
  assert future.result(60) == 7 and not background.unfinished()
  with pytest.raises(SystemExit):
    background.submit(sys.exit, 3).result(60)
  assert not background.unfinished()


def test_work_whose_thread_cannot_start_is_not_unfinished(monkeypatch):
  def fail(thread):
    raise RuntimeError("can't start new thread")

  monkeypatch.setattr(threading.Thread, 'start', fail)
  with pytest.raises(RuntimeError, match='new thread'):
    background.submit(int)
  assert not background.unfinished()


@pytest.mark.ci
@pytest.mark.parametrize('error, code, last', [
  ("InputError('no checkpoint is valid')", 2, 'gptjax: no checkpoint is valid'),
  ("KeyError('a bug')", 1, "KeyError: 'a bug'")])
def test_an_error_ends_a_run_although_its_step_still_compiles(corpus_folder, tmp_path, error, code, last):
  flags = command(corpus_folder, tmp_path / 'run')[3:]
  done = subprocess.run([sys.executable, '-c', FAILING.replace('ERROR', error), *flags], cwd=ROOT,
                        capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
  assert done.returncode == code, done.stderr
  assert done.stderr.strip().splitlines()[-1] == last, done.stderr
  assert not done.stdout, done.stdout
