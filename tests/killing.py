"""Kills or signals a process at a chosen point of its progress, by what it does to files and never by time.

In a script: `at_change`, `at_line`, `forked`, `everywhere`. Around the real command: `instead_of_main`, which
runs this file.
"""

import builtins
import fnmatch
import io
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
import traceback
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def die():
  os.kill(os.getpid(), signal.SIGKILL)


def at_change(pattern, n, act=die):
  """Calls `act` right before this process changes files for the n-th time; half of a write is done by then.

  Changes are what a restart can find done or not done: a file opened for writing, each write, fsync, rename,
  removal, and a new folder. A kill at any other moment leaves the same behind as one at the next of these.

  Args:
    pattern: of absolute paths (`fnmatch`); changes elsewhere do not count.
    n: from 1.
    act: function without arguments.
  """
  number = itertools.count(1)
  def is_it(*paths):
    return any(fnmatch.fnmatch(path, pattern) for path in paths) and next(number) == n
  def audit(event, arguments):
    if is_it(*_changed(event, arguments)):
      act()
  sys.addaudithook(audit)
  def synced(file):  # without waiting for the disk: what the kernel has, a kill does not take away
    if is_it(_path_of(file if isinstance(file, int) else file.fileno())):
      act()
  os.fsync = synced
  def written(file, path, data, write):
    if not is_it(path):
      return write(data)
    write(data[:len(data) // 2])
    file.flush()
    act()
    return write(data[len(data) // 2:])
  _on_write(written)


def at_line(pattern, expression, act=die):
  """Calls `act` right after the first line that matches a regular expression was written to such a file."""
  waiting = [True]
  def written(file, path, data, write):
    result = write(data)
    text = data if isinstance(data, str) else bytes(data).decode(errors='replace')
    if waiting and fnmatch.fnmatch(path, pattern) and re.search(expression, text):
      waiting.clear()
      file.flush()
      act()
    return result
  _on_write(written)


def _changed(event, arguments):
  """The paths that an audit event is about to change."""
  if event == 'open':
    path, _, flags = arguments
    return [_absolute(path)] if flags & WRITES and isinstance(path, str | os.PathLike) else []
  if event == 'os.rename':
    return [_absolute(path, folder) for path, folder in zip(arguments[:2], arguments[2:], strict=True)]
  if event in ('os.remove', 'os.rmdir', 'os.mkdir'):
    return [_absolute(arguments[0], arguments[-1])]
  return []


def _absolute(path, folder=-1):
  return os.path.join(os.getcwd() if folder == -1 else _path_of(folder), os.fsdecode(path))


def _path_of(file):
  return os.path.realpath(f'/proc/self/fd/{file}')


def _on_write(written):
  """From now on `written(file, path, data, write)` stands in for `write` of each file that is opened."""
  plain = builtins.open
  def opened(path, mode='r', *args, **kwargs):
    file = plain(path, mode, *args, **kwargs)
    if set(mode) & set('wax+') and not isinstance(path, int):
      write = file.write
      file.write = lambda data: written(file, _absolute(path), data, write)
    return file
  builtins.open = io.open = opened


def forked(work, pattern='', n=0):
  """Does work() in a fork of this process, which must have no threads.

  Args:
    work: function without arguments.
    pattern, n: the fork is killed at this change; 0: it goes on to its end.

  Returns:
    Whether it was killed; False: it ended before.
  """
  process = os.fork()
  if not process:
    code = 1
    try:
      if n:
        at_change(pattern, n)
      work()
      code = 0
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stderr.flush()
      os._exit(code)
  code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
  if code not in (0, -signal.SIGKILL):
    raise RuntimeError(f'ended with exit code {code}, before change {n}')
  return code == -signal.SIGKILL


def everywhere(work, folder, state, made, shares):
  """Kills work(1) at each of its changes in turn, and lets it go on to its end; every third is killed twice.

  Prints a line of JSON for each: [n of the change, state(), made()]; for n = 0, of what was never killed.

  Args:
    work: function of the number of processes that it is to use.
    folder: what it makes; changes elsewhere do not count.
    state: what the kill left, JSON.
    made: what there is in the end, JSON.
    shares: of all changes: there work(2), too, is killed.
  """
  pattern = f'{folder}*'
  def once(n, workers):
    shutil.rmtree(folder, ignore_errors=True)
    left, doomed = None, (n, *(random.Random(n).choices(range(1, 20), k=n % 3 == 0))) if n else ()
    for point in doomed:
      if not forked(lambda: work(workers), pattern, point):
        break
      left = left or state()
    else:
      forked(lambda: work(workers))
    if left or not n:
      print(json.dumps([n, left, made()]), flush=True)
    return left
  once(0, 1)
  last = next(n for n in itertools.count(1) if not once(n, 1)) - 1
  for share in shares:
    once(int(share * last), 2)


def instead_of_main(command, kind, pattern, what, number=signal.SIGKILL, who=None):
  """A command line of `python -m gptjax.main` that sends a signal at a point of its progress.

  Args:
    command: the command line.
    kind, pattern, what: 'change', the pattern and n of `at_change`; or 'line' and those of `at_line`.
    number: of the signal.
    who: file with the process ids to which it goes, written after they have started; None: to itself.
  """
  flags = command[command.index('gptjax.main') + 1:]
  return [command[0], str(Path(__file__).resolve()), *map(str, (kind, pattern, what, int(number), who or '')),
          *flags]


def main():
  kind, pattern, what, number, who = sys.argv[1:6]
  del sys.argv[1:6]
  def act():
    processes = sorted(map(int, Path(who).read_text().split()) if who else [os.getpid()],
                       key=lambda process: process == os.getpid())  # itself comes last
    if who:
      os.utime(who)  # says when
    for process in processes:
      os.kill(process, int(number))
  if kind == 'change':
    at_change(pattern, int(what), act)
  else:
    at_line(pattern, what, act)
  sys.path[0] = os.getcwd()
  runpy.run_module('gptjax.main', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
