"""The GPUs of its node that a process uses: all that it is assigned, and none of another process."""

import re

from gptjax.errors import InputError

DEVICE = re.compile('[0-9]+|GPU-.+|MIG-.+')  # an entry of CUDA_VISIBLE_DEVICES; others end the list


def local_device_ids(environ, index, n_processes, n_gpus):
  """Return the indices of the GPUs that one of the processes of a run on a node uses.

  Slurm assigns each task its own GPUs (--gpus-per-task), or all tasks the GPUs of the node (--gpus-per-node).
  In the first case CUDA_VISIBLE_DEVICES has fewer GPUs than SLURM_GPUS_ON_NODE, and the GPUs of all tasks add
  up to it. GPUs that all tasks see are divided. If fewer GPUs do not add up, they may be the same in each
  task, for example because a script sets CUDA_VISIBLE_DEVICES. Their indices do not show this: if Slurm hides
  the other GPUs from a task, the visible ones are 0, 1, ... in each task. Such tasks are refused.

  Args:
    environ: the environment; JAX_LOCAL_DEVICE_IDS and JAX_CUDA_VISIBLE_DEVICES take precedence.
    index: of the process among those of the run on its node.
    n_processes: number of processes of the run on the node.
    n_gpus: number of GPUs of the node, used if no variable has the number of visible GPUs.

  Returns:
    Indices among the visible GPUs; None: all visible ones, or there are none.

  Raises:
    InputError: the GPUs cannot be divided, or a variable is not an integer.
  """
  if environ.get('JAX_LOCAL_DEVICE_IDS'):
    return _read_indices(environ, 'JAX_LOCAL_DEVICE_IDS')
  platforms = environ.get('JAX_PLATFORMS') or 'cuda'
  if not {'cuda', 'gpu'} & set(platforms.split(',')) or n_processes == 1:
    return None
  if environ.get('JAX_CUDA_VISIBLE_DEVICES') not in (None, '', 'all'):
    return None
  n_visible, n_on_node = visible_gpus(environ), read_integer(environ, 'SLURM_GPUS_ON_NODE')
  assigned_per_task = n_visible is not None and n_visible == _gpus_per_task(environ)
  if n_visible and n_on_node is not None and n_visible < n_on_node:
    n_seen = n_visible * n_processes
    if n_seen != n_on_node and not (assigned_per_task and n_seen < n_on_node):
      raise InputError(f'{n_processes} tasks share {n_on_node} GPUs of this node, but each sees {n_visible} '
                       f'of them (CUDA_VISIBLE_DEVICES={environ["CUDA_VISIBLE_DEVICES"]}), so it is unknown '
                       'whether they see the same GPUs. Assign each its own by --gpus-per-task or '
                       'JAX_LOCAL_DEVICE_IDS, or all of them by --gpu-bind=none')
    return None
  if assigned_per_task and n_on_node is None:
    return None
  n_shared = n_on_node if n_visible is None else n_visible
  n_shared = n_gpus if n_shared is None else n_shared
  if n_shared == 0:
    return None
  if n_shared % n_processes:
    raise InputError(f'{n_processes} processes on this node cannot share {n_shared} GPUs evenly: start a '
                     f'number that divides {n_shared}, or set JAX_LOCAL_DEVICE_IDS for each; '
                     'JAX_PLATFORMS=cpu uses none')
  if index >= n_processes:
    raise InputError(f'this process has index {index} among the {n_processes} processes on this node: use 0 '
                     f'to {n_processes - 1}')
  share = n_shared // n_processes
  return list(range(index * share, (index + 1) * share))


def visible_gpus(environ):
  """Return the number of GPUs in CUDA_VISIBLE_DEVICES; None if it is not set."""
  if 'CUDA_VISIBLE_DEVICES' not in environ:
    return None
  count = 0
  for entry in environ['CUDA_VISIBLE_DEVICES'].split(','):
    if not DEVICE.fullmatch(entry.strip()):
      break
    count += 1
  return count


def read_integer(environ, name):
  """Return the non-negative integer in an environment variable; None if it is not set or empty.

  Raises:
    InputError: the value is not such an integer.
  """
  text = environ.get(name, '').strip()
  if not text:
    return None
  if not re.fullmatch('[0-9]{1,10}', text):
    raise InputError(f'{name}={environ[name]!r} is not a non-negative integer: correct or unset it; '
                     '--num_processes=1 runs a single process')
  return int(text)


def _read_indices(environ, name):
  text = environ[name]
  if not re.fullmatch('[0-9]{1,4}(,[0-9]{1,4})*', text):
    raise InputError(f'{name}={text!r} is not a list of GPU indices like 0,1')
  return [int(part) for part in text.split(',')]


def _gpus_per_task(environ):
  """Return the number of GPUs in SLURM_GPUS_PER_TASK ('2', 'a100:2', 'a100:1,h100:1'), or None."""
  parts = environ.get('SLURM_GPUS_PER_TASK', '').split(',')
  counts = [re.fullmatch('(?:[^:]+:)*([0-9]{1,4})', part) for part in parts]
  return sum(int(count[1]) for count in counts) if all(counts) else None
