"""Work in threads is known until it ends, and not if it cannot begin."""

import threading

import pytest

from gptjax.command import background


def test_work_that_cannot_begin_is_not_unfinished(monkeypatch):
  def fail(thread):
    raise RuntimeError("can't start new thread")

  monkeypatch.setattr(background, '_running', set())
  go = threading.Event()
  waits = background.submit(go.wait)
  assert background.unfinished()
  go.set()
  assert waits.result() and not background.unfinished()
  monkeypatch.setattr(threading.Thread, 'start', fail)
  with pytest.raises(RuntimeError, match='new thread'):
    background.submit(go.wait)
  assert not background.unfinished()
