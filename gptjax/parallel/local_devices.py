"""Which GPUs of its node a process uses: all that it was given, and none that another process uses."""

import re

from gptjax.errors import InputError

DEVICE = re.compile('[0-9]+|GPU-.+|MIG-.+')  # an entry of CUDA_VISIBLE_DEVICES; others end the list


def local_devices(environ, me, n, gpus):
  """The GPUs of one of the processes of a run that share a node.

  Slurm gives each task GPUs of its own (--gpus-per-task), or all tasks those of the node (--gpus-per-node):
  in the first case CUDA_VISIBLE_DEVICES has fewer than SLURM_GPUS_ON_NODE, and those of all tasks make it up.
  GPUs that all see are divided. Fewer that do not make it up may be the same ones in each task, as where a
  script sets CUDA_VISIBLE_DEVICES, and their names do not tell: where Slurm hides the other GPUs from a task,
  those that it sees are 0, 1, ... in each. Such tasks are refused.

  Args:
    environ: the environment; JAX_LOCAL_DEVICE_IDS and JAX_CUDA_VISIBLE_DEVICES in it win.
    me: the number of the process on its node.
    n: how many of the run there are on it.
    gpus: how many GPUs the node has, where no variable tells how many are visible.

  Returns:
    Indices among the visible GPUs; None: all that are visible, or none is.

  Raises:
    InputError: they cannot be divided, or a variable is not a number.
  """
  if environ.get('JAX_LOCAL_DEVICE_IDS'):
    return _ids(environ, 'JAX_LOCAL_DEVICE_IDS')
  platforms = environ.get('JAX_PLATFORMS') or 'cuda'
  if not {'cuda', 'gpu'} & set(platforms.split(',')) or n == 1:
    return None
  if environ.get('JAX_CUDA_VISIBLE_DEVICES') not in (None, '', 'all'):
    return None
  mine, on_node = visible_gpus(environ), read_integer(environ, 'SLURM_GPUS_ON_NODE')
  own = mine is not None and mine == _per_task(environ)
  if mine and on_node is not None and mine < on_node:
    if mine * n != on_node and not (own and mine * n < on_node):
      raise InputError(f'{n} tasks share {on_node} GPUs of this node, but each sees {mine} of them '
                       f'(CUDA_VISIBLE_DEVICES={environ["CUDA_VISIBLE_DEVICES"]}): which does each use? Give '
                       'each its own by --gpus-per-task or JAX_LOCAL_DEVICE_IDS, or all of them by '
                       '--gpu-bind=none')
    return None
  if own and on_node is None:
    return None
  seen = on_node if mine is None else mine
  seen = gpus if seen is None else seen
  if seen == 0:
    return None
  if seen % n:
    raise InputError(f'{n} processes on this node cannot share {seen} GPUs evenly: start as many as divide '
                     f'{seen}, or set JAX_LOCAL_DEVICE_IDS for each; JAX_PLATFORMS=cpu uses none')
  if me >= n:
    raise InputError(f'this process is number {me} on its node, which has {n} of the run')
  share = seen // n
  return list(range(me * share, (me + 1) * share))


def visible_gpus(environ):
  """How many GPUs CUDA_VISIBLE_DEVICES lets a process see; None: it is not set."""
  if 'CUDA_VISIBLE_DEVICES' not in environ:
    return None
  count = 0
  for entry in environ['CUDA_VISIBLE_DEVICES'].split(','):
    if not DEVICE.fullmatch(entry.strip()):
      break
    count += 1
  return count


def read_integer(environ, name):
  """The integer that a variable holds, from 0; None: it is not set, or empty.

  Raises:
    InputError: it holds something else.
  """
  text = environ.get(name, '').strip()
  if not text:
    return None
  if not re.fullmatch('[0-9]{1,10}', text):
    raise InputError(f'{name}={environ[name]!r} is not a number: unset it; --num_processes=1 runs alone')
  return int(text)


def _ids(environ, name):
  text = environ[name]
  if not re.fullmatch('[0-9]{1,4}(,[0-9]{1,4})*', text):
    raise InputError(f'{name}={text!r} is not a list of numbers like 0,1')
  return [int(part) for part in text.split(',')]


def _per_task(environ):
  """The number in SLURM_GPUS_PER_TASK: '2', 'a100:2'; None: there is none."""
  found = re.search('([0-9]{1,4})$', environ.get('SLURM_GPUS_PER_TASK', ''))
  return int(found[1]) if found else None
