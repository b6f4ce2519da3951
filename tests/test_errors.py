"""Which errors are the machine's, and the line that says so."""

import errno
import os

import numpy as np
import pytest

from gptjax import errors
from gptjax.storage.files import cache


@pytest.mark.parametrize('number', errors.MACHINE)
@pytest.mark.parametrize('path', ['/runs/x/metrics.jsonl', None])
def test_what_a_machine_refuses_is_a_line_with_path_reason_and_remedy(number, path):
  line, code = errors.describe(OSError(number, os.strerror(number), path), '/runs/x')
  reason = 'no space left on the disk' if number in (errno.ENOSPC, errno.EDQUOT) else os.strerror(number)
  assert code == errors.BAD_INPUT and '\n' not in line
  assert (path or '/runs/x') in line and reason in line and errors.MACHINE[number] in line


def test_a_full_disk_during_a_run_in_a_bucket_is_that_of_the_cache(tmp_path, monkeypatch):
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  line, code = errors.describe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 'gs://b/run')
  assert code == 2 and f'no space left on the disk of {tmp_path}/cache: free some' in line
  assert 'resumes from the newest checkpoint' in line


def np_error():
  """What NumPy raises where the machine has not the memory."""
  try:
    np.empty(1 << 60, np.uint8)
  except MemoryError as error:
    return error


JAX = type('JaxRuntimeError', (RuntimeError,), {})


@pytest.mark.parametrize('number', [errno.ENOENT, errno.EINVAL, errno.EBADF, errno.ENOTDIR, errno.EEXIST])
def test_other_numbers_are_bugs(number):
  assert errors.describe(OSError(number, os.strerror(number), '/runs/x'), '/runs/x') is None


@pytest.mark.parametrize('error, says', [
  (MemoryError(), 'out of memory'), (np_error(), 'out of memory (Unable to allocate'),
  (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), 'ulimit -v'),
  (ImportError('libx.so.2: failed to map segment from shared object'), 'ulimit -v'),
  (RuntimeError("can't start new thread"), 'ulimit -u'),
  (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), 'ulimit -u'),
  (JAX('RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nBuffers:'), 'gptjax.plan'),
  (JAX('RESOURCE_EXHAUSTED: Received message larger than max'), None), (JAX('INTERNAL: out of memory'), None),
  (RuntimeError('thread'), None), (ImportError('no module'), None)])
def test_what_has_run_out_is_a_line(error, says):
  words = errors.describe(error, '/runs/x')
  assert words is None if says is None else says in words[0] and '\n' not in words[0] and words[1] == 2


TENSORFLOW = type('UnknownError', (Exception,), {'__module__': 'tensorflow.python.framework.errors_impl'})


def caused(error, by):
  error.__cause__ = by
  return error


@pytest.mark.parametrize('error, fault', [
  (ValueError('RESOURCE_EXHAUSTED: Error writing "a/0": Failed to write 4227 bytes to file 15: No space left '
              "on device [os_error_code='28']"), (errno.ENOSPC, '')),
  (ValueError("NOT_FOUND: [os_error_code='2']"), None),
  (ValueError('No space left on device'), None),
  (TENSORFLOW('{{function_node __wrapped__FlushSummaryWriter_device_/device:CPU:0}} r/tensorboard/e.v2; File '
              'too large\n\tFailed to flush 2 events'), (errno.EFBIG, 'r/tensorboard/e.v2')),
  (TENSORFLOW('r/tensorboard; Read-only file system'), (errno.EROFS, 'r/tensorboard')),
  (TENSORFLOW('r/tensorboard; No such file or directory'), None),
  (caused(RuntimeError('the writer failed'), OSError(errno.EIO, 'x', 'f')), (errno.EIO, 'f')),
  (KeyError('No space left on device'), None)])
def test_libraries_that_raise_no_oserror_are_understood(error, fault):
  assert errors.system_fault(error) == fault


def test_a_checkpoint_is_called_good_where_there_is_one(tmp_path):
  said = lambda: errors.describe(OSError(errno.ENOSPC, '', 'x'), str(tmp_path))[0].rpartition('; ')[2]
  (tmp_path / 'corpus').mkdir()
  (tmp_path / 'corpus' / 'manifest.json').touch()
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  assert said() == 'there is no checkpoint yet'
  (tmp_path / 'task' / 'seed-1' / 'checkpoints' / '5').mkdir(parents=True)
  (tmp_path / 'task' / 'seed-1' / 'checkpoints' / '5' / 'manifest.json').touch()
  assert said() == 'the newest checkpoint is valid'
