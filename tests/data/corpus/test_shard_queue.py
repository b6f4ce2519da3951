"""The queue of shards: whose error is raised, and what counts as progress while a reader waits."""

import threading

import pytest

from gptjax.data.corpus import shard_queue
from gptjax.errors import InputError


class Shard:
  """A shard whose `load` waits for `released`, and then returns the next of `errors`, None after the last."""

  def __init__(self, errors=()):
    self.url, self.size, self.n_downloaded = 'gs://b/shard', 10, 0
    self.done = self.claimed = self.failed = False
    self.released, self.began, self.errors = threading.Event(), threading.Event(), list(errors)
    self._error = None

  @property
  def error(self):
    return self._error

  @error.setter
  def error(self, value):
    self._error, self.done = value, True

  def load(self):
    self.began.set()
    self.released.wait(60)
    if self.errors:
      return self.errors.pop(0)
    self.done = True
    return None


def wait_in_thread(queue, *shards):
  thread = threading.Thread(target=queue.wait, args=(shards,), daemon=True)
  thread.start()
  for _ in range(1000):
    if queue._waited_for[shards[0]]:
      return thread
    threading.Event().wait(0.01)
  raise TimeoutError


def test_a_fault_of_a_planned_shard_is_tried_again_though_a_reader_waits_for_another():
  queue, noted = shard_queue.Queue(), []
  planned, awaited = Shard([InputError('an outage')]), Shard()
  queue.begin(iter([[planned]]), noted.append, lambda: None)
  assert planned.began.wait(60)
  thread = wait_in_thread(queue, awaited)
  planned.released.set()
  for _ in range(1000):
    if planned.failed:
      break
    threading.Event().wait(0.01)
  awaited.released.set()
  thread.join(60)
  assert planned.failed and planned.error is None
  queue.wait([planned])  # hours later
  assert planned.done and planned.error is None and noted == ['an outage']


def test_the_error_of_a_shard_that_is_waited_for_is_raised_to_its_reader():
  queue, error = shard_queue.Queue(), InputError('damaged')
  shard = Shard([error])
  thread = wait_in_thread(queue, shard)
  shard.released.set()
  thread.join(60)
  assert shard.error is error and not queue._waited_for


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('bytes_come', [True, False])
def test_waiting_is_progress_only_while_bytes_come(bytes_come):
  queue, shard, called = shard_queue.Queue(), Shard(), []
  def progress():
    called.append(1)
  queue.begin(iter(()), print, progress)
  thread = wait_in_thread(queue, shard)
  for _ in range(5):
    threading.Event().wait(0.5)
    shard.n_downloaded += bytes_come
  shard.released.set()
  thread.join(60)
  assert bool(called) == bytes_come
