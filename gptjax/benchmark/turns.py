"""Contenders by turns: each a process of its own that works when it is told to.

The parent lets them take turns, so that a machine whose speed drifts is the same machine for all.
"""

import contextlib
import json
import statistics
import subprocess
import sys

from gptjax import shutdown
from gptjax.errors import InputError


def serve(facts, answer):
  """A worker's side: prints its facts, then for each line of JSON on stdin `answer` of it, as JSON."""
  print(json.dumps(facts), flush=True)
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)


def by_turns(commands, question, turns, lost=None):
  """Asks each worker the same question, turn after turn; the first turn is a warm-up.

  Args:
    commands: {contender: command line of a process that calls `serve`}.
    question: what JSON can write.
    turns: how many that count.
    lost: function of the name of a contender that ended early, which is left out then; None: an error.

  Returns:
    {contender: (facts, [answer of each turn])}.

  Raises:
    ValueError: a worker ended early.
  """
  workers, facts, answers = {}, {}, {}
  try:
    for name, command in commands.items():
      with shutdown.blocked():
        workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for name in list(workers):
      facts[name] = _answer(workers, name, '', lost)
      answers[name] = []
    for turn in range(turns + 1):
      for name in list(workers):
        answer = _answer(workers, name, json.dumps(question) + '\n', lost)
        if turn:
          answers[name].append(answer)
    return {name: (facts[name], answers[name]) for name in workers}
  finally:
    for process in workers.values():
      process.kill()
      process.wait()


def _answer(workers, name, said, lost):
  """What a worker says next; None, and it is no longer one, if it has ended and may be lost."""
  process = workers[name]
  with contextlib.suppress(BrokenPipeError):  # it has ended: there is no line then
    process.stdin.write(said)
    process.stdin.flush()
  line = process.stdout.readline()
  if line:
    return json.loads(line)
  if lost is None:
    raise InputError(f'the contender {name} ended early: see its message above')
  workers.pop(name).wait()
  with contextlib.suppress(BrokenPipeError):
    process.stdin.close()
  lost(name)
  return None


def output_of(command):
  """The stdout of a command that is a process of its own, as text; CalledProcessError where it fails."""
  with shutdown.blocked():
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  try:
    said, _ = process.communicate()
  finally:
    process.kill()
    process.wait()
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)
  return said


def times_faster(ours, theirs):
  """How many times less time `ours` took than `theirs`: the median of turn by turn ratios.

  Turn by turn, so that a machine that drifts cancels.
  """
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
