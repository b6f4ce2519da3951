"""One stage of the GPU benchmark: python -m gptjax.benchmark.stage SUBJECT [flags], as `gpu` starts it.

The process leads a process group. Its stdin is a pipe whose other end `gpu` holds. When `gpu` exits for any
reason, the pipe closes and this process and its workers end, so that no measurement is left on the GPU.
"""

import os
import signal
import sys

from gptjax.benchmark.interleave import end_with_parent

if __name__ == '__main__':
  end_with_parent(lambda: os.killpg(0, signal.SIGKILL))
  from gptjax.benchmark.__main__ import main
  from gptjax.command import run
  run.run(main, f'gptjax.benchmark {sys.argv[1]}')
