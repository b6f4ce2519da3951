"""One part of the benchmark of a GPU: python -m gptjax.benchmark.stage SUBJECT [flags], as `gpu` starts it.

The process leads a process group. Its stdin is a pipe of which `gpu` holds the other end: when that one ends,
however it does, this process and its workers end too, so that no measurement is left on the GPU.
"""

import os
import signal
import sys
import threading


def end_with_parent():
  """Kills this process group at the end of stdin."""
  def wait(fd):
    while os.read(fd, 1):
      pass
    os.killpg(0, signal.SIGKILL)
  pipe = os.dup(0)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nobody else reads it
  threading.Thread(target=wait, args=(pipe,), daemon=True).start()


if __name__ == '__main__':
  end_with_parent()
  from gptjax.benchmark.__main__ import main
  from gptjax.command import run
  run.run(main, f'gptjax.benchmark {sys.argv[1]}')
