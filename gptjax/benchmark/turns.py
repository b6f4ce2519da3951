"""Contenders by turns: each a process of its own that works when it is told to.

The parent lets them take turns, so that a machine whose speed drifts is the same machine for all.
"""

import json
import statistics
import subprocess
import sys


def serve(facts, answer):
  """A worker's side: prints its facts, then for each line of JSON on stdin `answer` of it, as JSON."""
  print(json.dumps(facts), flush=True)
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)


def by_turns(commands, question, turns):
  """Asks each worker the same question, turn after turn; the first turn is a warm-up.

  Args:
    commands: {contender: command line of a process that calls `serve`}.
    question: what JSON can write.
    turns: how many that count.

  Returns:
    {contender: (facts, [answer of each turn])}.

  Raises:
    ValueError: a worker ended early.
  """
  pipe = subprocess.PIPE
  workers = {}
  try:
    for name, command in commands.items():
      workers[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    facts = {name: _answer(name, process) for name, process in workers.items()}
    answers = {name: [] for name in commands}
    for turn in range(turns + 1):
      for name, process in workers.items():
        process.stdin.write(json.dumps(question) + '\n')
        process.stdin.flush()
        answer = _answer(name, process)
        if turn:
          answers[name].append(answer)
    return {name: (facts[name], answers[name]) for name in commands}
  finally:
    for process in workers.values():
      process.kill()
      process.wait()


def _answer(name, process):
  line = process.stdout.readline()
  if not line:
    raise ValueError(f'the contender {name} ended early: see its message above')
  return json.loads(line)


def times_faster(ours, theirs):
  """How many times less time `ours` took than `theirs`: the median of turn by turn ratios.

  Turn by turn, so that a machine that drifts cancels.
  """
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
