"""Is this process one of several, and which? Decided from flags and environment variables alone.

The order and the addresses are those of `jax._src.clusters`, with three differences: under Slurm the step
decides, not the job; `local_devices` divides the GPUs; and what is odd or missing is an InputError that names
the variable. JAX's own detection is therefore switched off where JAX starts.
"""

import glob
import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax
from jax._src import clusters

from gptjax.errors import InputError, LostProcess
from gptjax.parallel.coordinator import HOST_NAME, host_and_port, join_host_port
from gptjax.parallel.local_devices import local_devices, read_integer

SINGLE_PROCESS_HINT = '--num_processes=1 runs alone'
FLAGS = '--coordinator=HOST:PORT, --num_processes=N and --process_id=I'
ADDRESS_LIMIT = 60  # seconds in which the name of process 0 is to become known
SHELLS = ('bash', 'sh', 'zsh', 'fish', 'tcsh', 'csh', 'ksh', 'dash')  # names of Slurm jobs that are a shell
NO_STEPS = (0xfffffffa, 0xfffffffb, 0xfffffffc)  # numbers of a job's interactive, batch and extern step


class Membership(NamedTuple):
  """This process is one of several.

  address: 'HOST:PORT' of process 0, as gRPC reads it.
  num_processes, process_id: the number of processes, and the index of this one.
  local_devices: indices of the GPUs that JAX is to use; None: all that it sees.
  source: the environment variable that decided, 'NAME=value'; '' if the flags did.
  """
  address: str
  num_processes: int
  process_id: int
  local_devices: list | None
  source: str


class DetectedCluster(NamedTuple):
  """A cluster by its variables; a value is asked for only where no flag gives it.

  source: the variable that decided.
  num_processes, address, process_id: functions without arguments.
  local: function that gives (number of this process on its node, how many are there); None: GPUs are not
    shared between processes.
  """
  source: str
  num_processes: Any
  address: Any
  process_id: Any
  local: Any = None


def detect_here(coordinator, num_processes, process_id):
  """`detect` for the environment and the machine of this process."""
  environ = {**os.environ, 'JAX_PLATFORMS': jax.config.jax_platforms or ''}
  return detect(environ, coordinator, num_processes, process_id,
                tpu_vm=clusters.cluster.running_in_cloud_tpu_vm, gpus=len(glob.glob('/dev/nvidia[0-9]*')))


def detect(environ, coordinator=None, num_processes=None, process_id=None, *, tpu_vm=False, gpus=0, ask=None):
  """Whether this process joins others; a pure function of its arguments unless it asks the network.

  Args:
    environ: the environment; JAX_PLATFORMS in it as JAX has it.
    coordinator, num_processes, process_id: the flags, None where not given. A flag wins over variables, and
      where all three are given no variable is read but JAX's own.
    tpu_vm: whether JAX has found TPUs here.
    gpus: number of GPUs that this machine has.
    ask: see `jax_cluster_class`, which it is by default.

  Returns:
    Joins, or None: the process is alone.

  Raises:
    InputError: flags or variables that do not fit, by name and value.
    LostProcess: who knows the other processes does not answer.
  """
  given = coordinator, num_processes, process_id
  found = None
  if num_processes != 1 and None in given:
    found = _find(environ, tpu_vm, ask or jax_cluster_class)
    if not found:
      if given == (None, None, None):
        return None
      raise _incomplete(given)
  n = found.num_processes() if num_processes is None and found else num_processes
  if n == 1 and process_id in (None, 0):
    return None
  me = found.process_id() if process_id is None else process_id
  if not 0 <= me < n:
    who = f'the number of this process, {me},' if process_id is None else f'--process_id={me}'
    count = 'the number of processes' if num_processes is None else '--num_processes'
    raise InputError(f'{who} must be from 0 to {count} - 1 = {n - 1}{f" ({found.source})" if found else ""}')
  if coordinator is None:
    host, port = host_and_port(found.address(), f'{found.source}: the address of process 0')
  else:
    host, port = host_and_port(coordinator)
  for name in ('JAX_PARTITION_INDEX', 'JAX_SLICE_INDEX'):  # JAX reads them once it has started
    read_integer(environ, name)
  devices = local_devices(environ, *(found.local() if found and found.local else (0, 1)), gpus)
  return Membership(join_host_port(host, port), n, me, devices, found.source if found else '')


def jax_cluster_class(name):
  """JAX's class that asks the network who the other processes are; None: it does not find itself there.

  Args:
    name: 'kubernetes' or 'tpu'.
  """
  if name == 'kubernetes' and not importlib.util.find_spec('kubernetes'):
    raise ValueError('the package kubernetes, which asks for them, is not installed (pip install kubernetes)')
  kind = {'kubernetes': clusters.K8sCluster, 'tpu': clusters.GceTpuCluster}[name]
  return kind if kind.is_env_present() else None


def _find(environ, tpu_vm, ask):
  """The first cluster of JAX's list that has several processes; None: there is none."""
  return (_open_mpi(environ) or _slurm(environ) or _tpu(environ, tpu_vm, ask)
          or _kubernetes(environ, ask))


def _incomplete(given):
  names = 'coordinator', 'num_processes', 'process_id'
  absent = [f'--{name}' for name, value in zip(names, given, strict=True) if value is None]
  absent = f'{" and ".join(absent)} {"is" if len(absent) == 1 else "are"} missing'
  return InputError(f'{FLAGS} go together: {absent}, and no environment variable of Slurm, Open MPI, Cloud '
                    f'TPU or Kubernetes says it; {SINGLE_PROCESS_HINT}')


def _need(environ, name, by):
  """A number without which a cluster is not whole."""
  value = read_integer(environ, name)
  if value is None:
    raise _lacks(by, f'{name} is not set')
  return value


def _lacks(by, why):
  return InputError(f'{by} means that this process is one of several, but {why}: give {FLAGS}, or unset the '
                    f'variable; {SINGLE_PROCESS_HINT}')


def _port(environ, usual):
  port = read_integer(environ, 'JAX_COORDINATOR_PORT')
  return usual if port is None else port


def _spread(job):
  """The port that JAX chooses by the number of a job."""
  return 65535 - 2**12 + 1 + job % 2**12


def _open_mpi(environ):
  name = 'OMPI_COMM_WORLD_SIZE'
  if (read_integer(environ, name) or 1) == 1:
    return None
  by = f'{name}={environ[name]}'
  def address():
    uri = environ.get('OMPI_MCA_orte_hnp_uri')  # '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911'
    if not uri:
      raise _lacks(by, 'Open MPI does not say where process 0 is (it has done so until version 4)')
    job = re.match(r'([0-9]{1,18})\.', uri)
    host = re.search(r'tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]', uri)
    if not job or not host:
      raise _lacks(by, f'OMPI_MCA_orte_hnp_uri={uri!r} holds no address')
    return join_host_port(host[1] or host[2], _port(environ, _spread(int(job[1]) // 2**12)))
  return DetectedCluster(by, lambda: read_integer(environ, name), address,
                         lambda: _need(environ, 'OMPI_COMM_WORLD_RANK', by),
                         lambda: (_need(environ, 'OMPI_COMM_WORLD_LOCAL_RANK', by),
                                  _need(environ, 'OMPI_COMM_WORLD_LOCAL_SIZE', by)))


def _slurm(environ):
  """A task of a step of several: not a shell or a notebook in a job of several."""
  if 'SLURM_STEP_NODELIST' not in environ:
    return None
  name = 'SLURM_STEP_NUM_TASKS' if environ.get('SLURM_STEP_NUM_TASKS') else 'SLURM_NTASKS'
  if _in_slurm_shell(environ, name) or (read_integer(environ, name) or 1) == 1:
    return None
  n, by = read_integer(environ, name), f'{name}={environ[name]}'
  def address():
    nodes = environ['SLURM_STEP_NODELIST']  # 'node7', 'node[007-015,20],other'
    first = re.match(r'([^,\[]|\[[^\]]*\])*', nodes)[0]
    first = re.sub(r'\[([^\],-]*)[^\]]*\]', r'\1', first)
    if not HOST_NAME.fullmatch(first):
      raise _lacks(by, f'SLURM_STEP_NODELIST={nodes!r} names no node')
    return join_host_port(first, _port(environ, _spread(_need(environ, 'SLURM_JOB_ID', by))))
  return DetectedCluster(by, lambda: n, address, lambda: _need(environ, 'SLURM_PROCID', by),
                         lambda: (_need(environ, 'SLURM_LOCALID', by), _tasks_on_node(environ, n, by)))


def _in_slurm_shell(environ, name):
  """Whether this is a shell in which a user types, not a task: then its step or its job says nothing."""
  step, job = read_integer(environ, 'SLURM_STEP_ID'), environ.get('SLURM_JOB_NAME')
  if step in NO_STEPS or (name == 'SLURM_NTASKS' and job in ('interactive', *SHELLS)):
    return True
  # `srun --ntasks=4 --pty bash` makes a job of that name whose step 0 is the shell. All that is started in a
  # shell with a pty inherits its port, so the port alone decides nothing: in a job of `salloc`, whose name is
  # `interactive` and whose shell is a step without a number, step 0 is the first `srun` of the user.
  return job in SHELLS and step == 0 and 'SLURM_PTY_PORT' in environ


def _tasks_on_node(environ, n, by):
  """How many tasks of the step this node has."""
  shown = environ.get('SLURM_STEP_TASKS_PER_NODE')  # '8', '8(x3),4'
  if shown:
    parts = [re.fullmatch(r'([0-9]{1,6})(?:\(x([0-9]{1,6})\))?', part) for part in shown.split(',')]
    if not all(parts):
      raise _lacks(by, f'SLURM_STEP_TASKS_PER_NODE={shown!r} is not a list like 8(x3),4')
    node = read_integer(environ, 'SLURM_NODEID') or 0
    for part in parts:
      node -= int(part[2] or 1)
      if node < 0:
        return int(part[1])
    raise _lacks(by, f'SLURM_NODEID={environ["SLURM_NODEID"]} is not in SLURM_STEP_TASKS_PER_NODE={shown}')
  per_node = read_integer(environ, 'SLURM_NTASKS_PER_NODE')
  if per_node:
    return min(per_node, n)
  nodes = read_integer(environ, 'SLURM_STEP_NUM_NODES') or 1
  if n % nodes:
    raise _lacks(by, 'SLURM_STEP_TASKS_PER_NODE, which tells how many share the GPUs of a node, is not set')
  return n // nodes


def _tpu(environ, tpu_vm, ask):
  """Workers of Cloud TPU; what GKE's variables do not say the metadata server of the machine does."""
  platforms = environ.get('JAX_PLATFORMS') or 'tpu'
  if 'tpu' not in platforms.split(','):
    return None
  name = next((name for name in ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES') if name in environ), None)
  slices = read_integer(environ, 'MEGASCALE_NUM_SLICES') or 1
  workers = environ[name].split(',') if name else ['']
  n = len(workers) * slices
  if tpu_vm and not name and 'TPU_SKIP_MDS_QUERY' not in environ:
    return _asked('a Cloud TPU VM', 'tpu', environ, ask)
  if n == 1:
    return None
  by = f'{name}={environ[name]}' if len(workers) > 1 else f'MEGASCALE_NUM_SLICES={slices}'
  if not tpu_vm:
    raise _lacks(by, 'JAX finds no TPU here (no chips, or the package libtpu is missing)')
  if not name:
    raise _lacks(by, 'TPU_WORKER_HOSTNAMES is not set')
  def me():
    return (_need(environ, 'TPU_WORKER_ID', by)
            + (_need(environ, 'MEGASCALE_SLICE_ID', by) * len(workers) if slices > 1 else 0))
  def address():
    first = environ.get('MEGASCALE_COORDINATOR_ADDRESS') or (workers[0] if slices == 1 else '')
    if not first:
      raise _lacks(by, 'MEGASCALE_COORDINATOR_ADDRESS is not set')
    return join_host_port(first.split(':')[0], _port(environ, 8482))
  return DetectedCluster(by, lambda: n, address, me)


def _kubernetes(environ, ask):
  if 'KUBERNETES_SERVICE_HOST' not in environ or 'JOB_COMPLETION_INDEX' not in environ:
    return None
  by = f'JOB_COMPLETION_INDEX={environ["JOB_COMPLETION_INDEX"]}'
  found = _asked(by, 'kubernetes', environ, ask)
  return found and found._replace(process_id=lambda: _need(environ, 'JOB_COMPLETION_INDEX', by))


def _asked(by, name, environ, ask):
  """A cluster about which JAX's class asks the network."""
  def one_line(work):
    try:
      return work()
    except Exception as error:
      why = ' '.join(str(error).split())[:300] or type(error).__name__
      if _may_pass(error, name):
        raise LostProcess(f'{by}: who the other processes are is not known yet: {why}. Start again; '
                          f'{SINGLE_PROCESS_HINT}') from error
      raise _lacks(by, f'who the others are is not known: {why}') from error
  kind = one_line(lambda: ask(name))
  if kind is None:
    return None
  def address():
    port = read_integer(environ, 'JAX_COORDINATOR_PORT')
    return one_line(lambda: kind.get_coordinator_address(ADDRESS_LIMIT, port and str(port)))
  return DetectedCluster(by, lambda: one_line(kind.get_process_count), address,
                         lambda: one_line(kind.get_process_id))


def _may_pass(error, name):
  """Whether to ask again may help: the name of process 0 is not known yet, the API is busy."""
  if re.search('Retry failed|Failed to recognize coordinator', str(error)):
    return True
  return name == 'kubernetes' and (isinstance(error, OSError) or type(error).__module__.startswith('urllib3')
                                   or getattr(error, 'status', 0) >= 500)
