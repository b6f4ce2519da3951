"""Locks of open files (`flock`), on file systems that have them."""

import errno
import fcntl

# Numbers of the errors of a file system without flock.
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


def lock(file, shared=False, wait=True):
  """Lock an open file until it, and each duplicate of its descriptor, is closed.

  Args:
    file: open; for writing, unless the lock is shared.
    shared: whether others can have a shared lock at the same time.
    wait: whether to wait for those that have it.

  Returns:
    Whether it is locked; False: the file system has no locks.

  Raises:
    BlockingIOError: with `wait=False`, another open file has it.
  """
  operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
  try:
    fcntl.flock(file, operation | (0 if wait else fcntl.LOCK_NB))
  except OSError as error:
    if error.errno not in UNSUPPORTED:
      raise
    return False
  return True
