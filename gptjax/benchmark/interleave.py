"""Interleaved measurements: each contender is a worker process that answers requests.

Workers start one after the other, so that none compiles while another one compiles or is measured. After
that, each turn sends the same request to every worker. A machine whose speed drifts then affects all
contenders alike.
"""

import contextlib
import json
import math
import os
import select
import statistics
import subprocess
import sys
import threading
import time

from gptjax.command import bars, shutdown
from gptjax.errors import InputError

STARTING = 0.7  # share of the time limit in which contenders may start; the rest is for measuring


class WorkerLost(Exception):
  """A worker has exited, or did not answer in time; the message states which."""


def end_with_parent(kill):
  """Call `kill` when the pipe that is stdin has lost its writer, even by SIGKILL; reads nothing from it."""
  pipe = os.dup(0)

  def wait():
    writer = select.poll()
    writer.register(pipe, 0)  # reports POLLHUP alone
    writer.poll()
    kill()
  threading.Thread(target=wait, daemon=True).start()


def serve(facts, answer):
  """Run the worker's side: print its facts, then the answer to each request.

  Args:
    facts: dict that JSON can write.
    answer: function from a request, one line of JSON on stdin, to an answer that JSON can write.
  """
  with os.fdopen(os.dup(1), 'w') as out:
    os.dup2(2, 1)  # keeps what libraries print out of the answers
    print(json.dumps(facts), file=out, flush=True)
    for line in sys.stdin:
      print(json.dumps(answer(json.loads(line))), file=out, flush=True)


def interleaved(commands, request, turns, on_lost=None, on_answer=None, limit_s=math.inf):
  """Start the workers one after the other, then send each the same request, turn after turn.

  The first answer of each worker, directly after its start, is a warm-up.

  Args:
    commands: {contender: command line of a process that calls `serve`}.
    request: value that JSON can write.
    turns: number of turns after the warm-up; fewer are measured if the time is over.
    on_lost: function of (contender, reason), called for a worker that exits early or is not ready in time;
      the contender is then left out. None: a lost worker is an error.
    on_answer: function of (contender, facts, answer, turn), called after each answer; turn 0 is the warm-up.
    limit_s: time limit in seconds for everything together.

  Returns:
    {contender: (facts, [answer of each turn after the warm-up])}.

  Raises:
    InputError: a worker exited early, and `on_lost` is None.
  """
  session = _Session(json.dumps(request) + '\n', on_lost, on_answer, limit_s)
  try:
    total = len(commands) * (turns + 1)  # with the warm-up
    with bars.bar(total=total, unit='answer', desc='measure', leave=False) as session.bar:
      for name, command in commands.items():
        session.start(name, command)
      session.measure(turns)
    return {name: (session.facts[name], session.answers[name]) for name in session.workers}
  finally:
    for worker in session.workers.values():
      worker.close()


class _Session:
  """The workers of one call of `interleaved`; see there for the arguments. `line` is the encoded request."""

  def __init__(self, line, on_lost, on_answer, limit_s):
    self.line, self.on_lost, self.on_answer, self.limit_s = line, on_lost, on_answer, limit_s
    start = time.monotonic()
    self.deadline, self.latest_start = start + limit_s, start + STARTING * limit_s
    self.workers, self.facts, self.answers, self.bar = {}, {}, {}, None

  def start(self, name, command):
    """Start a worker and wait for its facts and its warm-up."""
    if time.monotonic() >= self.latest_start and self.on_lost is not None:
      self.on_lost(name, f'was not started: the limit of {self.limit_s:.0f} s is too short')
      return
    with shutdown.block_signals():
      self.workers[name] = Worker(command)
    # While no other worker can be measured, waiting for this one costs nothing.
    until = self.latest_start if len(self.workers) > 1 else self.deadline
    self.facts[name], self.answers[name] = self._request(name, '', until), []
    if name in self.workers:
      self._request(name, self.line, until, turn=0)

  def measure(self, turns):
    """Send the request to all workers, turn after turn, while there is time for one more turn."""
    turn_s = 0  # of the last turn: another one of this length must end in time
    for turn in range(1, turns + 1):
      start = time.monotonic()
      if start + turn_s > self.deadline:
        break
      for name in list(self.workers):
        answer = self._request(name, self.line, self.deadline, turn)
        if name in self.workers:
          self.answers[name].append(answer)
      turn_s = time.monotonic() - start

  def _request(self, name, line, until, turn=None):
    """The answer of a worker; None if the worker is lost. `turn` is None for its facts."""
    try:
      answer = self.workers[name].request(line, until)
    except WorkerLost as lost:
      if self.on_lost is None:
        raise InputError(f'the contender {name} {lost}: see its message above') from None
      self.workers.pop(name).close()
      self.on_lost(name, str(lost))
      return None
    if turn is not None:
      self.bar.update()
      if self.on_answer:
        self.on_answer(name, self.facts[name], answer, turn)
    return answer


class Worker:
  """A process that calls `serve`."""

  def __init__(self, command):
    self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    self._buffer = b''

  def request(self, line, until):
    """The decoded answer of the process to a line.

    Args:
      line: str; '': send nothing, and read the facts.
      until: deadline, a time of `time.monotonic`.

    Raises:
      WorkerLost: the process has exited, or does not answer before the deadline.
    """
    with contextlib.suppress(BrokenPipeError):  # the process has exited: reading reports it
      self._process.stdin.write(line.encode())
      self._process.stdin.flush()
    out = self._process.stdout.fileno()
    while b'\n' not in self._buffer:
      left = until - time.monotonic()
      if left <= 0 or not select.select([out], [], [], None if math.isinf(left) else left)[0]:
        raise WorkerLost('did not answer in time')
      data = os.read(out, 1 << 16)
      if not data:
        raise WorkerLost('exited early')
      self._buffer += data
    answer, _, self._buffer = self._buffer.partition(b'\n')
    return json.loads(answer)

  def close(self):
    """End the process."""
    self._process.kill()
    self._process.wait()
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.stdout.close()


def output_of(command):
  """The stdout of a command, run as a child process, as text; CalledProcessError if the command fails."""
  process, (reader, writer) = None, os.pipe()  # for `end_with_parent`
  try:
    with shutdown.block_signals():
      process = subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
  finally:
    if process:
      process.kill()
      process.wait()
    os.close(reader)
    os.close(writer)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)
  return output


def speedup(seconds, baseline_seconds):
  """How many times as fast `seconds` are as `baseline_seconds`: the median of the ratios of single turns.

  Ratios within a turn cancel a drift of the machine's speed.
  """
  return statistics.median(b / a for a, b in zip(seconds, baseline_seconds, strict=True))
