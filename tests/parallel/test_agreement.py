"""Decisions of a single process; those of several are in test_processes.py."""

import time

from gptjax.parallel import agreement, processes


def test_a_save_is_due_when_the_last_one_started_long_enough_ago(monkeypatch):
  timer = processes.save_timer(2)
  monkeypatch.setattr(time, 'monotonic', lambda: 1000.0)
  assert [timer.due(since) for since in (1000.0, 881.0, 880.0, 0.0)] == [False, False, True, True]


def test_with_0_minutes_it_never_is(monkeypatch):
  timer = processes.save_timer(0)
  monkeypatch.setattr(time, 'monotonic', lambda: 1e9)
  assert not timer.due(0.0)


def test_a_stop_is_requested_once_there_was_a_signal(monkeypatch):
  stop = agreement.Stop()
  assert not stop.requested()
  monkeypatch.setattr(agreement.shutdown, 'signalled', lambda: True)
  assert stop.requested()
  monkeypatch.setattr(agreement.shutdown, 'signalled', lambda: False)
  assert stop.requested()


class Store:
  """The key-value store, and what the other processes do to it."""

  def __init__(self, monkeypatch, me):
    self.values = {}
    monkeypatch.setattr(agreement.control, 'hosts', ['a', 'b'])
    monkeypatch.setattr(agreement, 'process_index', lambda: me)
    for module in (agreement, agreement.control):
      monkeypatch.setattr(module, 'client', lambda: self)

  def key_value_set(self, key, value):
    self.values[key] = value

  def key_value_dir_get(self, folder):
    return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


def test_each_request_is_agreed_on_by_itself_and_blocks_no_call_after_it(monkeypatch):
  store, timer = Store(monkeypatch, me=0), agreement.SaveTimer()
  timer.seconds = 1
  late, now = time.monotonic() - 2, time.monotonic() + 60
  for request in (1, 2):
    assert not timer.due(now) and timer.requests == request - 1
    assert not timer.due(late) and not timer.due(late) and timer.requests == request, 'asked for once'
    timer.advance(request)
    assert timer.lock.locked(), 'the next call waits for the other process'
    timer.advance(request)
    calls = timer.calls
    store.key_value_set(f'gptjax/save/{request}/1', str(calls + 1))
    timer.advance(request)
    timer.advance(request)
    assert not timer.lock.locked() and timer.agreed == request
    assert [timer.due(now) for _ in range(3)] == [False, True, False]


def test_another_process_than_0_asks_for_nothing(monkeypatch):
  Store(monkeypatch, me=1)
  timer = agreement.SaveTimer()
  timer.seconds = 1
  assert not timer.due(time.monotonic() - 9) and timer.requests == 0
