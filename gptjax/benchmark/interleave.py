"""Contenders interleaved: each a process of its own that works when it is asked.

They start one after the other, so that none compiles while another is compiling or measured. Then they take
turns, so that a machine whose speed drifts is the same machine for all.
"""

import contextlib
import json
import math
import os
import select
import statistics
import subprocess
import sys
import time

from gptjax.command import shutdown
from gptjax.errors import InputError

STARTING = 0.7  # share of the time in which contenders may still start, the rest is for measuring


class WorkerLost(Exception):
  """A worker has ended, or has no answer in time; the reason in words."""


def serve(facts, answer):
  """A worker's side: prints its facts, then for each line of JSON on stdin `answer` of it, as JSON."""
  with os.fdopen(os.dup(1), 'w') as out:
    os.dup2(2, 1)  # what libraries print is no answer
    print(json.dumps(facts), file=out, flush=True)
    for line in sys.stdin:
      print(json.dumps(answer(json.loads(line))), file=out, flush=True)


def interleaved(commands, question, turns, lost=None, tell=None, limit_s=math.inf):
  """Starts the workers one after the other, then asks each the same question, turn after turn.

  A first answer of each, as soon as it has started, is a warm-up.

  Args:
    commands: {contender: command line of a process that calls `serve`}.
    question: what JSON can write.
    turns: how many that count; fewer if the time is over before.
    lost: function of (contender, why) for one that ended early or is not ready in time, and is left out then;
      None: an error.
    tell: function of (contender, facts, answer, turn), called after each answer; turn 0 is the warm-up.
    limit_s: seconds for all of it.

  Returns:
    {contender: (facts, [answer of each turn that counts])}.

  Raises:
    InputError: a worker ended early, and `lost` is None.
  """
  began = time.monotonic()
  deadline, latest_start = began + limit_s, began + STARTING * limit_s
  asked = json.dumps(question) + '\n'
  workers, facts, answers = {}, {}, {}

  def ask(name, line, turn, until):
    try:
      answer = workers[name].request(line, until)
    except WorkerLost as ended:
      if lost is None:
        raise InputError(f'the contender {name} {ended}: see its message above') from None
      workers.pop(name).close()
      lost(name, str(ended))
      return None
    if turn is not None and tell:
      tell(name, facts[name], answer, turn)
    return answer

  try:
    for name, command in commands.items():
      if time.monotonic() >= latest_start and lost is not None:
        lost(name, f'was not started: {limit_s:.0f} s are too short')
        continue
      with shutdown.block_signals():
        workers[name] = Worker(command)
      # While no other can be measured, waiting for this one costs nothing.
      until = latest_start if len(workers) > 1 else deadline
      facts[name], answers[name] = ask(name, '', None, until), []
      if name in workers:
        ask(name, asked, 0, until)
    taken = 0  # seconds of the last turn: another one as long must end in time
    for turn in range(1, turns + 1):
      began = time.monotonic()
      if began + taken > deadline:
        break
      for name in list(workers):
        answer = ask(name, asked, turn, deadline)
        if name in workers:
          answers[name].append(answer)
      taken = time.monotonic() - began
    return {name: (facts[name], answers[name]) for name in workers}
  finally:
    for worker in workers.values():
      worker.close()


class Worker:
  """A process that calls `serve`."""

  def __init__(self, command):
    self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    self._read = b''

  def request(self, line, until):
    """Its answer to a line, decoded.

    Args:
      line: str; '': its facts.
      until: moment of `time.monotonic`.

    Raises:
      Ended: it has ended, or has no answer by then.
    """
    with contextlib.suppress(BrokenPipeError):  # it has ended: there is no line then
      self._process.stdin.write(line.encode())
      self._process.stdin.flush()
    out = self._process.stdout.fileno()
    while b'\n' not in self._read:
      left = until - time.monotonic()
      if left <= 0 or not select.select([out], [], [], None if math.isinf(left) else left)[0]:
        raise WorkerLost('has no answer in time')
      new = os.read(out, 1 << 16)
      if not new:
        raise WorkerLost('ended early')
      self._read += new
    answer, _, self._read = self._read.partition(b'\n')
    return json.loads(answer)

  def close(self):
    """Ends the process."""
    self._process.kill()
    self._process.wait()
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.stdout.close()


def output_of(command):
  """The stdout of a command that is a process of its own, as text; CalledProcessError where it fails."""
  process = None
  try:
    with shutdown.block_signals():
      process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate()
  finally:
    if process:
      process.kill()
      process.wait()
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)
  return said


def speedup(ours, theirs):
  """How many times less time `ours` took than `theirs`: the median of turn by turn ratios.

  Turn by turn, so that a machine that drifts cancels.
  """
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
