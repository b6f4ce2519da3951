"""Workers keep the order of what they are given, pass on errors and end with their parent."""

import os
import subprocess
import sys
import time

WORKING = """
import os, signal, time
from gptjax.data import workers
def make(factor):
  def function(payload):
    if payload == 3:
      os.kill(os.getpid(), signal.SIGKILL)
    if payload == 7:
      raise ValueError('seven')
    time.sleep(0.01 * (payload % 3))
    return payload * factor
  return function
def attempt(items, n):
  try:
    with workers.pool(make, [2], n) as map_items:
      print(list(map_items(items)))
  except (ValueError, RuntimeError) as error:
    print(error)
if __name__ == '__main__':
  items = [(-i, i) for i in range(10, 40)]
  attempt(items, 1)
  attempt(items, 3)
  attempt([(0, 0), (0, 7)], 2)
  attempt([(0, 0), (0, 3), *items], 2)
"""


def test_workers_keep_the_order_and_pass_on_errors(tmp_path):
  (tmp_path / 'script.py').write_text(WORKING)
  done = subprocess.run([sys.executable, str(tmp_path / 'script.py')], capture_output=True,
                        text=True, check=True, env={**os.environ, 'PYTHONPATH': os.getcwd()})
  one, three, wrong, died = done.stdout.splitlines()
  assert one == three == str([(-i, 2 * i) for i in range(10, 40)])
  assert wrong == 'seven' and died.startswith('a worker process died (exit code -9)')


def runs(process):
  """Whether a process has not ended; one that nobody has waited for yet is still listed."""
  try:
    with open(f'/proc/{process}/stat') as file:
      return file.read().rpartition(')')[2].split()[0] not in 'ZX'
  except (FileNotFoundError, ProcessLookupError):
    return False


def test_workers_end_when_their_parent_is_killed(tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text('''
import time
from gptjax.data import workers
def make():
  import os
  return lambda payload: os.getpid()
if __name__ == '__main__':
  with workers.pool(make, (), 2) as map_items:
    for item, pid in map_items((i, i) for i in range(10**9)):
      print(pid, flush=True)
''')
  parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, 'PYTHONPATH': os.getcwd()})
  found = {int(parent.stdout.readline()) for _ in range(200)}
  parent.kill()
  parent.wait()
  deadline = time.monotonic() + 120
  while any(map(runs, found)):
    assert time.monotonic() < deadline, found
    time.sleep(0.05)
  parent.stdout.close()
