"""One stage of the GPU benchmark: python -m gptjax.benchmark.stage SUBJECT [flags], as `gpu` starts it.

The process leads a process group. Its stdin is a pipe whose other end `gpu` holds. When `gpu` exits for any
reason, the pipe closes and this process and its workers end, so that no measurement is left on the GPU.
"""

import os
import signal
import sys
import threading


def end_with_parent():
  """Kill this process group when stdin closes."""
  def wait(fd):
    while os.read(fd, 1):
      pass
    os.killpg(0, signal.SIGKILL)
  pipe = os.dup(0)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # no other code may read the pipe
  threading.Thread(target=wait, args=(pipe,), daemon=True).start()


if __name__ == '__main__':
  end_with_parent()
  from gptjax.benchmark.__main__ import main
  from gptjax.command import run
  run.run(main, f'gptjax.benchmark {sys.argv[1]}')
