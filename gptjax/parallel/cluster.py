"""Detect whether this process is one of several, and which one, from flags and environment variables.

The order of detection and the addresses are those of `jax._src.clusters`, with three differences: under Slurm
the step decides, not the job; `local_device_ids` divides the GPUs; and an invalid or missing variable is an
InputError whose message includes its name. JAX's own detection is therefore disabled when JAX starts.
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
from gptjax.parallel.local_devices import local_device_ids, read_integer

SINGLE_PROCESS_HINT = '--num_processes=1 runs a single process'
FLAGS = '--coordinator=HOST:PORT, --num_processes=N and --process_id=I'
ADDRESS_LIMIT = 60  # seconds to wait for the name of process 0
SHELLS = ('bash', 'sh', 'zsh', 'fish', 'tcsh', 'csh', 'ksh', 'dash')  # names of Slurm jobs that are shells
NO_STEPS = (0xfffffffa, 0xfffffffb, 0xfffffffc)  # numbers of a job's interactive, batch and extern steps


class Membership(NamedTuple):
  """The place of this process in a run of several.

  address: 'HOST:PORT' of process 0, in the form of gRPC.
  num_processes, process_id: the number of processes, and the index of this one.
  local_device_ids: indices of the GPUs that JAX uses; None: all visible ones.
  source: the environment variable that decided, 'NAME=value'; '' if the flags did.
  """
  address: str
  num_processes: int
  process_id: int
  local_device_ids: list | None
  source: str


class DetectedCluster(NamedTuple):
  """A cluster detected from its variables; a function is called only if no flag gives the value.

  source: the variable that decided.
  num_processes, address, process_id: functions without arguments.
  local: function that returns (index of this process on its node, number of processes there); None: processes
    do not share GPUs.
  """
  source: str
  num_processes: Any
  address: Any
  process_id: Any
  local: Any = None


def detect_here(coordinator, num_processes, process_id):
  """`detect` with the environment and the machine of this process."""
  environ = {**os.environ, 'JAX_PLATFORMS': jax.config.jax_platforms or ''}
  return detect(environ, coordinator, num_processes, process_id,
                tpu_vm=clusters.cluster.running_in_cloud_tpu_vm, gpus=len(glob.glob('/dev/nvidia[0-9]*')))


def detect(environ, coordinator=None, num_processes=None, process_id=None, *, tpu_vm=False, gpus=0,
           find_class=None):
  """Detect the place of this process in a run; depends on its arguments alone if `find_class` is not called.

  Args:
    environ: the environment, with JAX's value of JAX_PLATFORMS.
    coordinator, num_processes, process_id: the flags; None if not set. A flag takes precedence over
      variables. If all three are set, only JAX's own variables are read.
    tpu_vm: whether JAX has found TPUs on this machine.
    gpus: number of GPUs of this machine.
    find_class: replaces `jax_cluster_class`.

  Returns:
    Membership, or None for a single process.

  Raises:
    InputError: flags or variables do not fit; the message has their names and values.
    LostProcess: the service that lists the other processes does not answer.
  """
  flags = coordinator, num_processes, process_id
  cluster = None
  if num_processes != 1 and None in flags:
    cluster = _detect_cluster(environ, tpu_vm, find_class or jax_cluster_class)
    if not cluster:
      if flags == (None, None, None):
        return None
      raise _incomplete(flags)
  n = cluster.num_processes() if num_processes is None and cluster else num_processes
  if n == 1 and process_id in (None, 0):
    return None
  me = cluster.process_id() if process_id is None else process_id
  if not 0 <= me < n:
    who = f'the number of this process, {me},' if process_id is None else f'--process_id={me}'
    count = 'the number of processes' if num_processes is None else '--num_processes'
    by = f' ({cluster.source})' if cluster else ''
    raise InputError(f'{who} must be from 0 to {count} - 1 = {n - 1}{by}')
  if coordinator is None:
    host, port = host_and_port(cluster.address(), f'{cluster.source}: the address of process 0')
  else:
    host, port = host_and_port(coordinator)
  for name in ('JAX_PARTITION_INDEX', 'JAX_SLICE_INDEX'):  # JAX reads them after it has started
    read_integer(environ, name)
  devices = local_device_ids(environ, *(cluster.local() if cluster and cluster.local else (0, 1)), gpus)
  return Membership(join_host_port(host, port), n, me, devices, cluster.source if cluster else '')


def jax_cluster_class(name):
  """JAX's class that queries the network for the other processes; None if JAX does not detect this cluster.

  Args:
    name: 'kubernetes' or 'tpu'.
  """
  if name == 'kubernetes' and not importlib.util.find_spec('kubernetes'):
    raise ValueError('the package kubernetes, which lists them, is not installed (pip install kubernetes)')
  kind = {'kubernetes': clusters.K8sCluster, 'tpu': clusters.GceTpuCluster}[name]
  return kind if kind.is_env_present() else None


def _detect_cluster(environ, tpu_vm, find_class):
  """The first cluster in JAX's order that has several processes, or None."""
  return (_open_mpi(environ) or _slurm(environ) or _tpu(environ, tpu_vm, find_class)
          or _kubernetes(environ, find_class))


def _incomplete(flags):
  names = 'coordinator', 'num_processes', 'process_id'
  absent = [f'--{name}' for name, value in zip(names, flags, strict=True) if value is None]
  absent = f'{" and ".join(absent)} {"is" if len(absent) == 1 else "are"} missing'
  return InputError(f'{FLAGS} go together: {absent}, and no environment variable of Slurm, Open MPI, Cloud '
                    f'TPU or Kubernetes provides it; {SINGLE_PROCESS_HINT}')


def _need(environ, name, by):
  """A required integer variable of a cluster."""
  value = read_integer(environ, name)
  if value is None:
    raise _unusable(by, f'{name} is not set')
  return value


def _unusable(by, why):
  return InputError(f'{by} means that this process is one of several, but {why}: give {FLAGS}, or unset the '
                    f'variable; {SINGLE_PROCESS_HINT}')


def _port(environ, default):
  port = read_integer(environ, 'JAX_COORDINATOR_PORT')
  return default if port is None else port


def _port_of_job(job):
  """The port that JAX derives from the number of a job."""
  return 65535 - 2**12 + 1 + job % 2**12


def _open_mpi(environ):
  name = 'OMPI_COMM_WORLD_SIZE'
  if (read_integer(environ, name) or 1) == 1:
    return None
  by = f'{name}={environ[name]}'
  def address():
    uri = environ.get('OMPI_MCA_orte_hnp_uri')  # '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911'
    if not uri:
      raise _unusable(by, 'Open MPI does not provide the address of process 0 (versions up to 4 do)')
    job = re.match(r'([0-9]{1,18})\.', uri)
    host = re.search(r'tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]', uri)
    if not job or not host:
      raise _unusable(by, f'OMPI_MCA_orte_hnp_uri={uri!r} has no address')
    return join_host_port(host[1] or host[2], _port(environ, _port_of_job(int(job[1]) // 2**12)))
  return DetectedCluster(by, lambda: read_integer(environ, name), address,
                         lambda: _need(environ, 'OMPI_COMM_WORLD_RANK', by),
                         lambda: (_need(environ, 'OMPI_COMM_WORLD_LOCAL_RANK', by),
                                  _need(environ, 'OMPI_COMM_WORLD_LOCAL_SIZE', by)))


def _slurm(environ):
  """A task of a step with several tasks, but not a shell or a notebook in such a job."""
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
      raise _unusable(by, f'SLURM_STEP_NODELIST={nodes!r} has no node name')
    return join_host_port(first, _port(environ, _port_of_job(_need(environ, 'SLURM_JOB_ID', by))))
  return DetectedCluster(by, lambda: n, address, lambda: _need(environ, 'SLURM_PROCID', by),
                         lambda: (_need(environ, 'SLURM_LOCALID', by), _tasks_on_node(environ, n, by)))


def _in_slurm_shell(environ, name):
  """Whether this is an interactive shell, not a task: then the variables of its step or job do not apply."""
  step, job = read_integer(environ, 'SLURM_STEP_ID'), environ.get('SLURM_JOB_NAME')
  if step in NO_STEPS or (name == 'SLURM_NTASKS' and job in ('interactive', *SHELLS)):
    return True
  # `srun --ntasks=4 --pty bash` creates a job of that name whose step 0 is the shell. Everything started in a
  # shell with a pty inherits its port, so the port alone does not decide: in a job of `salloc`, whose name is
  # `interactive` and whose shell is a step without a number, step 0 is the first `srun` of the user.
  return job in SHELLS and step == 0 and 'SLURM_PTY_PORT' in environ


def _tasks_on_node(environ, n, by):
  """The number of tasks of the step on this node."""
  counts = environ.get('SLURM_STEP_TASKS_PER_NODE')  # '8', '8(x3),4'
  if counts:
    parts = [re.fullmatch(r'([0-9]{1,6})(?:\(x([0-9]{1,6})\))?', part) for part in counts.split(',')]
    if not all(parts):
      raise _unusable(by, f'SLURM_STEP_TASKS_PER_NODE={counts!r} is not a list like 8(x3),4')
    node = read_integer(environ, 'SLURM_NODEID') or 0
    for part in parts:
      node -= int(part[2] or 1)
      if node < 0:
        return int(part[1])
    raise _unusable(by, f'SLURM_NODEID={environ["SLURM_NODEID"]} is not in '
                        f'SLURM_STEP_TASKS_PER_NODE={counts}')
  per_node = read_integer(environ, 'SLURM_NTASKS_PER_NODE')
  if per_node:
    return min(per_node, n)
  nodes = read_integer(environ, 'SLURM_STEP_NUM_NODES') or 1
  if n % nodes:
    raise _unusable(by, 'SLURM_STEP_TASKS_PER_NODE, the number of tasks that share the GPUs of a node, is '
                        'not set')
  return n // nodes


def _tpu(environ, tpu_vm, find_class):
  """Workers of Cloud TPU, from GKE's variables or from the metadata server of the machine."""
  platforms = environ.get('JAX_PLATFORMS') or 'tpu'
  if 'tpu' not in platforms.split(','):
    return None
  name = next((name for name in ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES') if name in environ), None)
  slices = read_integer(environ, 'MEGASCALE_NUM_SLICES') or 1
  workers = environ[name].split(',') if name else ['']
  n = len(workers) * slices
  if tpu_vm and not name and 'TPU_SKIP_MDS_QUERY' not in environ:
    return _queried('a Cloud TPU VM', 'tpu', environ, find_class)
  if n == 1:
    return None
  by = f'{name}={environ[name]}' if len(workers) > 1 else f'MEGASCALE_NUM_SLICES={slices}'
  if not tpu_vm:
    raise _unusable(by, 'JAX finds no TPU on this machine (no chips, or the package libtpu is missing)')
  if not name:
    raise _unusable(by, 'TPU_WORKER_HOSTNAMES is not set')
  def me():
    return (_need(environ, 'TPU_WORKER_ID', by)
            + (_need(environ, 'MEGASCALE_SLICE_ID', by) * len(workers) if slices > 1 else 0))
  def address():
    first = environ.get('MEGASCALE_COORDINATOR_ADDRESS') or (workers[0] if slices == 1 else '')
    if not first:
      raise _unusable(by, 'MEGASCALE_COORDINATOR_ADDRESS is not set')
    return join_host_port(first.split(':')[0], _port(environ, 8482))
  return DetectedCluster(by, lambda: n, address, me)


def _kubernetes(environ, find_class):
  if 'KUBERNETES_SERVICE_HOST' not in environ or 'JOB_COMPLETION_INDEX' not in environ:
    return None
  by = f'JOB_COMPLETION_INDEX={environ["JOB_COMPLETION_INDEX"]}'
  cluster = _queried(by, 'kubernetes', environ, find_class)
  return cluster and cluster._replace(process_id=lambda: _need(environ, 'JOB_COMPLETION_INDEX', by))


def _queried(by, name, environ, find_class):
  """A cluster for which JAX's class queries the network."""
  def run(work):
    try:
      return work()
    except Exception as error:
      why = ' '.join(str(error).split())[:300] or type(error).__name__
      if _is_transient(error, name):
        raise LostProcess(f'{by}: the other processes are not known yet: {why}. Start again; '
                          f'{SINGLE_PROCESS_HINT}') from error
      raise _unusable(by, f'the other processes are not known: {why}') from error
  kind = run(lambda: find_class(name))
  if kind is None:
    return None
  def address():
    port = read_integer(environ, 'JAX_COORDINATOR_PORT')
    return run(lambda: kind.get_coordinator_address(ADDRESS_LIMIT, port and str(port)))
  return DetectedCluster(by, lambda: run(kind.get_process_count), address,
                         lambda: run(kind.get_process_id))


def _is_transient(error, name):
  """Whether a retry may succeed: the name of process 0 is not known yet, or the API is busy."""
  if re.search('Retry failed|Failed to recognize coordinator', str(error)):
    return True
  return name == 'kubernetes' and (isinstance(error, OSError) or type(error).__module__.startswith('urllib3')
                                   or getattr(error, 'status', 0) >= 500)
