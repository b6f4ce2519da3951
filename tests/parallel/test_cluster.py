"""What flags and environment variables say: alone, one of several, or a refusal that names the variable."""

import os
import re
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax._src import clusters

from gptjax.errors import InputError, LostProcess
from gptjax.parallel import cluster, coordinator
from gptjax.parallel.local_devices import local_device_ids, visible_gpus

# As Slurm 22.05 and Open MPI 4.1 set them.
STEP = {'SLURM_JOB_ID': '4097', 'SLURM_JOB_NAME': 'gptjax', 'SLURM_STEP_ID': '0',
        'SLURM_STEP_NODELIST': 'n[7-8]', 'SLURM_NTASKS': '4', 'SLURM_STEP_NUM_TASKS': '4',
        'SLURM_STEP_NUM_NODES': '2', 'SLURM_PROCID': '3', 'SLURM_STEP_TASKS_PER_NODE': '2(x2)',
        'SLURM_LOCALID': '1', 'SLURM_NODEID': '1'}
BATCH = {'SLURM_JOB_ID': '4', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0', 'SLURM_LOCALID': '0',
         'SLURM_NODEID': '0', 'SLURM_TASKS_PER_NODE': '4', 'SLURM_JOB_NAME': 'b.sbatch'}
MPI = {'OMPI_MCA_orte_hnp_uri': '1203175424.0;tcp://192.0.2.2,10.0.0.3:39351;tcp6://[fd00::2]:34191',
       'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1', 'OMPI_COMM_WORLD_LOCAL_RANK': '1',
       'OMPI_COMM_WORLD_LOCAL_SIZE': '2', 'PMIX_RANK': '1'}
TPU = {'TPU_WORKER_HOSTNAMES': 'w0,w1,w2', 'TPU_WORKER_ID': '2'}
SLICES = {**TPU, 'MEGASCALE_NUM_SLICES': '2', 'MEGASCALE_SLICE_ID': '1',
          'MEGASCALE_COORDINATOR_ADDRESS': 'm:80'}
POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '1'}
FLAGS = 'node:1234', 4, 2


def without(environ, *names):
  return {name: value for name, value in environ.items() if name not in names}


def asked(count=3, number=1, address='head-0.run:55527'):
  return types.SimpleNamespace(get_process_count=lambda: count, get_process_id=lambda: number,
                               get_coordinator_address=lambda seconds, port: address)


def failing(error):
  def ask(name):
    raise error
  return ask


def decide(environ, flags=(), **known):
  return cluster.detect({'JAX_PLATFORMS': '', **environ}, *flags, **known)


ALONE = [
  {}, BATCH, {'SLURM_NTASKS': '4', 'SLURM_JOB_NAME': 'interactive'},
  {**STEP, 'SLURM_STEP_NUM_TASKS': '1'},                   # srun --ntasks=1 in a job of four
  {**STEP, 'SLURM_STEP_ID': '4294967290'},                 # salloc's own step
  {**STEP, 'SLURM_STEP_ID': '4294967291'}, {**STEP, 'SLURM_STEP_ID': '4294967292'},
  {**without(STEP, 'SLURM_STEP_NUM_TASKS'), 'SLURM_JOB_NAME': 'interactive'},
  {**without(STEP, 'SLURM_STEP_NUM_TASKS'), 'SLURM_JOB_NAME': 'bash'},
  {**STEP, 'SLURM_JOB_NAME': 'bash', 'SLURM_PTY_PORT': '40409'},  # srun --ntasks=4 --pty bash
  {**BATCH, 'SLURM_NTASKS': 'four'},                       # nobody asks it there
  {'OMPI_COMM_WORLD_SIZE': '1'}, {'OMPI_MCA_orte_hnp_uri': MPI['OMPI_MCA_orte_hnp_uri']},
  {'PMIX_RANK': '1', 'PMIX_NAMESPACE': 'prterun-host-1@1', 'PRTE_MCA_x': '1'},
  {'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'}, {'TPU_WORKER_ID': '3'},
  {'TPU_PROCESS_ADDRESSES': 'a:1'}, {**TPU, 'JAX_PLATFORMS': 'cpu'}, {'MEGASCALE_NUM_SLICES': '1'},
  {'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, {'JOB_COMPLETION_INDEX': '1'},
  {'JAX_COORDINATOR_ADDRESS': 'node:1'}]


@pytest.mark.parametrize('environ', ALONE)
def test_alone(environ):
  assert decide(environ) is None


@pytest.mark.parametrize('environ', [STEP, MPI, TPU, SLICES, POD, {**STEP, 'SLURM_NTASKS': 'x'}])
def test_one_process_asks_nothing(environ):
  assert decide(environ, (None, 1), find_class=failing(AssertionError)) is None
  assert decide(environ, ('not an address', 1, 0), find_class=failing(AssertionError)) is None


@pytest.mark.parametrize('environ, address, n, me, known', [
  (STEP, 'n7:61441', 4, 3, {}),
  ({**STEP, 'SLURM_NTASKS': '9'}, 'n7:61441', 4, 3, {}),
  ({**STEP, 'SLURM_NTASKS': 'x'}, 'n7:61441', 4, 3, {}),
  (without(STEP, 'SLURM_STEP_NUM_TASKS'), 'n7:61441', 4, 3, {}),
  (without(STEP, 'SLURM_NTASKS'), 'n7:61441', 4, 3, {}),
  ({**STEP, 'SLURM_JOB_NAME': 'interactive', 'SLURM_STEP_ID': '2'}, 'n7:61441', 4, 3, {}),
  ({**STEP, 'SLURM_JOB_NAME': 'interactive', 'SLURM_PTY_PORT': '4'}, 'n7:61441', 4, 3, {}),  # salloc, srun
  ({**STEP, 'SLURM_JOB_NAME': 'python', 'SLURM_PTY_PORT': '4'}, 'n7:61441', 4, 3, {}),       # srun --pty
  ({**STEP, 'SLURM_JOB_NAME': 'bash', 'SLURM_STEP_ID': '1', 'SLURM_PTY_PORT': '4'}, 'n7:61441', 4, 3, {}),
  ({**STEP, 'SLURM_JOB_NAME': 'bash'}, 'n7:61441', 4, 3, {}),
  ({**STEP, 'SLURM_STEP_NODELIST': 'a'}, 'a:61441', 4, 3, {}),
  ({**STEP, 'SLURM_STEP_NODELIST': 'b-1.x,c[1-2]'}, 'b-1.x:61441', 4, 3, {}),
  ({**STEP, 'SLURM_STEP_NODELIST': 'n[007,9-15],z'}, 'n007:61441', 4, 3, {}),
  ({**STEP, 'SLURM_STEP_NODELIST': 'r[2-3]n[04-05]-ib'}, 'r2n04-ib:61441', 4, 3, {}),
  ({**STEP, 'JAX_COORDINATOR_PORT': '77'}, 'n7:77', 4, 3, {}),
  ({**STEP, **MPI}, '192.0.2.2:64368', 2, 1, {}),                             # mpirun in a Slurm job
  (MPI, '192.0.2.2:64368', 2, 1, {}),
  ({**MPI, 'OMPI_MCA_orte_hnp_uri': '4096.0;tcp6://[fe80::b9b,fd00::3]:43370'}, '[fe80::b9b]:61441',
   2, 1, {}),
  ({**MPI, 'OMPI_COMM_WORLD_SIZE': '1', **STEP}, 'n7:61441', 4, 3, {}), (TPU, 'w0:8482', 3, 2, {'tpu_vm':
  True}), ({**TPU, 'JAX_PLATFORMS': 'tpu,cpu'}, 'w0:8482', 3, 2, {'tpu_vm': True}), ({**TPU,
  'TPU_PROCESS_ADDRESSES': 'v0:8476,v1:8476,v2:8476,v3:8476'}, 'v0:8482', 4, 2, {'tpu_vm': True}), (SLICES,
  'm:8482', 6, 5, {'tpu_vm': True}), ({'JAX_PLATFORMS': 'tpu,cpu'}, 'head-0.run:55527', 3, 1, {'tpu_vm': True,
  'find_class': lambda name: asked()}), (POD, 'head-0.run:55527', 3, 1, {'find_class': lambda name:
  asked()})])
def test_one_of_several(environ, address, n, me, known):
  membership = decide(environ, **known)
  assert (membership.address, membership.num_processes, membership.process_id) == (address, n, me)
  assert membership.source


@pytest.mark.parametrize('environ, kind', [
  (STEP, clusters.SlurmCluster), ({**STEP, 'SLURM_STEP_NODELIST': 'b,c[1-2]'}, clusters.SlurmCluster),
  ({**STEP, 'SLURM_STEP_NODELIST': 'n[007,9-15],z'}, clusters.SlurmCluster), (MPI, clusters.OmpiCluster),
  (TPU, clusters.GkeTpuCluster), (SLICES, clusters.GkeTpuCluster)])
def test_it_is_what_jax_finds(monkeypatch, environ, kind):
  for name, value in {**dict.fromkeys(SLICES, ''), **environ}.items():  # '': JAX does not ask a server for it
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(clusters.cloud_tpu_cluster.BaseTpuCluster, 'wait_for_coordinator', lambda *_: None)
  membership = decide(environ, tpu_vm='TPU_WORKER_ID' in environ)
  expected = kind.get_coordinator_address(1, None), kind.get_process_count(), kind.get_process_id()
  assert membership[:3] == expected


HALF = [{'SLURM_STEP_NODELIST': 'a', 'SLURM_NTASKS': '2'}, {'OMPI_MCA_orte_hnp_uri': '1'},
        {'OMPI_COMM_WORLD_SIZE': '2'}, {**STEP, 'SLURM_PROCID': 'x'}, {**POD, 'JOB_COMPLETION_INDEX': ''},
        {'TPU_WORKER_HOSTNAMES': 'a,b'}, {'MEGASCALE_NUM_SLICES': 'two'}, {**MPI, **STEP}]


@pytest.mark.parametrize('environ', HALF)
def test_with_all_flags_no_variable_is_asked(environ):
  assert decide(environ, FLAGS, gpus=3, find_class=failing(AssertionError)) == (*FLAGS, None, '')


@pytest.mark.parametrize('flags, expected', [
  (('node:1', None, None), ('node:1', 4, 3)), ((None, 8, None), ('n7:61441', 8, 3)),
  ((None, None, 0), ('n7:61441', 4, 0)), (('node:1', None, 2), ('node:1', 4, 2))])
def test_a_flag_wins_over_a_variable(flags, expected):
  assert decide(STEP, flags)[:3] == expected


@pytest.mark.parametrize('environ, flags, says', [
  ({}, ('a:1',), '--num_processes and --process_id are missing, and no'),
  ({}, ('a:1', 2), '--process_id is missing'),
  ({}, (None, 2, 0), '--coordinator is missing'), (BATCH, ('a:1', 2), 'variable of Slurm, Open MPI'),
  ({}, ('a:1', 2, 2), '--process_id=2 must be from 0 to --num_processes - 1 = 1'),
  ({}, (None, 1, 1), '--process_id=1 must be from 0'),
  ({**STEP, 'SLURM_PROCID': '4'}, (), 'number of this process, 4, must be from 0'),
  ({**STEP, 'SLURM_PROCID': 'x'}, (), "SLURM_PROCID='x' is not a non-negative integer"),
  ({**STEP, 'SLURM_STEP_NUM_TASKS': '-4'}, (), "SLURM_STEP_NUM_TASKS='-4' is not a non-negative integer"),
  ({**without(STEP, 'SLURM_STEP_NUM_TASKS'), 'SLURM_NTASKS': '²'}, (),
   "SLURM_NTASKS='²' is not a non-negative integer"),
  ({**STEP, 'SLURM_STEP_ID': 'x'}, (), "SLURM_STEP_ID='x' is not a non-negative integer"),
  ({**STEP, 'SLURM_JOB_ID': '1_2'}, (), "SLURM_JOB_ID='1_2' is not a non-negative integer"),
  (without(STEP, 'SLURM_JOB_ID'), (), 'SLURM_STEP_NUM_TASKS=4 means .* SLURM_JOB_ID is not set'),
  (without(STEP, 'SLURM_PROCID'), (), 'SLURM_PROCID is not set'),
  (without(STEP, 'SLURM_LOCALID'), (), 'SLURM_LOCALID is not set'),
  ({**STEP, 'SLURM_STEP_NODELIST': ''}, (), "SLURM_STEP_NODELIST='' has no node name"),
  ({**STEP, 'SLURM_STEP_NODELIST': '[1-2'}, (), 'has no node name'),
  ({**STEP, 'SLURM_STEP_TASKS_PER_NODE': '2x2'}, (), "SLURM_STEP_TASKS_PER_NODE='2x2'"),
  ({**STEP, 'SLURM_NODEID': '2'}, (), 'SLURM_NODEID=2 is not in'),
  ({**STEP, 'JAX_COORDINATOR_PORT': 'x'}, (), "JAX_COORDINATOR_PORT='x' is not a non-negative integer"),
  ({**STEP, 'JAX_COORDINATOR_PORT': '0'}, (), "the port '0' must be"),
  ({**STEP, 'JAX_LOCAL_DEVICE_IDS': '0;1'}, (), "JAX_LOCAL_DEVICE_IDS='0;1' is not"),
  ({'JAX_PARTITION_INDEX': 'x'}, FLAGS, "JAX_PARTITION_INDEX='x' is not a non-negative integer"),
  ({'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '0'}, (), 'OMPI_COMM_WORLD_SIZE=2 means'),
  (without(MPI, 'OMPI_MCA_orte_hnp_uri'), (), 'does not provide the address of process 0'),
  ({**MPI, 'OMPI_MCA_orte_hnp_uri': 'x'}, (), "OMPI_MCA_orte_hnp_uri='x' has no address"),
  ({**MPI, 'OMPI_COMM_WORLD_SIZE': 'two'}, (), "OMPI_COMM_WORLD_SIZE='two' is not a non-negative integer"),
  (without(MPI, 'OMPI_COMM_WORLD_RANK'), (), 'OMPI_COMM_WORLD_RANK is not set'),
  (TPU, (), 'TPU_WORKER_HOSTNAMES=w0,w1,w2 means .* JAX finds no TPU'),
  ({'MEGASCALE_NUM_SLICES': '2'}, (), 'MEGASCALE_NUM_SLICES=2 means .* JAX finds no TPU'),
  ({**SLICES, 'MEGASCALE_NUM_SLICES': 'x'}, (), "MEGASCALE_NUM_SLICES='x' is not a non-negative integer")])
def test_what_is_odd_is_refused_by_name(environ, flags, says):
  with pytest.raises(InputError, match=says) as refused:
    decide(environ, flags)
  assert '\n' not in str(refused.value)
  if not any(flags):
    assert re.search('runs a single process|HOST:PORT|like 0,1|must be from', str(refused.value))


@pytest.mark.parametrize('lacking', ['TPU_WORKER_ID', 'MEGASCALE_SLICE_ID', 'MEGASCALE_COORDINATOR_ADDRESS'])
def test_what_slices_of_tpus_lack_is_refused_by_name(lacking):
  with pytest.raises(InputError, match=f'{lacking} is not set'):
    decide(without(SLICES, lacking), tpu_vm=True)


class ApiException(Exception):
  status = 403


class Busy(Exception):
  status = 503


@pytest.mark.parametrize('error, kind', [
  (RuntimeError('Kubernetes API Error: 403 - Forbidden\nIt appears'), InputError),
  (KeyError('job-name'), InputError), (ApiException('no'), InputError),
  (RuntimeError('Retry failed with all attempts exhausted'), LostProcess),
  (ConnectionError('refused'), LostProcess), (Busy('later'), LostProcess)])
def test_whom_the_network_does_not_name(error, kind):
  with pytest.raises(kind, match=r'JOB_COMPLETION_INDEX=1.*runs a single process') as refused:
    decide(POD, find_class=failing(error))
  assert '\n' not in str(refused.value)


def test_a_tpu_vm_without_a_metadata_server_is_told_how_to_run_alone():
  with pytest.raises(InputError, match=r'Cloud TPU VM means .*refused.*runs a single process'):
    decide({}, tpu_vm=True, find_class=failing(ConnectionError('refused')))
  assert decide({'TPU_SKIP_MDS_QUERY': '1'}, tpu_vm=True, find_class=failing(AssertionError)) is None
  assert decide({}, tpu_vm=True, find_class=lambda name: None) is None
  assert decide({}, tpu_vm=True, find_class=lambda name: asked(count=1)) is None


VARIABLES = sorted({*STEP, *MPI, *SLICES, *POD, 'TPU_PROCESS_ADDRESSES', 'JAX_COORDINATOR_PORT',
                    'SLURM_PTY_PORT', 'JAX_LOCAL_DEVICE_IDS', 'CUDA_VISIBLE_DEVICES', 'SLURM_GPUS_ON_NODE',
                    'SLURM_NTASKS_PER_NODE', 'SLURM_GPUS_PER_TASK', 'JAX_PLATFORMS'})
VALUES = st.sampled_from(['', '0', '1', '2', '3', '8(x2),1', 'x', '-1', '9' * 12, 'a,b', 'n[1-2]', 'a:1,b:1',
                          'cpu',
                          *STEP.values(), *MPI.values()]) | st.text('09-,:[]()x \n²', max_size=5)


@given(base=st.sampled_from([{}, STEP, MPI, SLICES, POD]), tpu_vm=st.booleans(), gpus=st.integers(0, 8),
       changed=st.dictionaries(st.sampled_from(VARIABLES), st.none() | VALUES, max_size=4))
def test_any_environment_gives_a_decision_or_one_line(base, changed, tpu_vm, gpus):
  environ = {name: value for name, value in {**base, **changed}.items() if value is not None}
  try:
    membership = decide(environ, tpu_vm=tpu_vm, gpus=gpus, find_class=lambda name: asked())
  except InputError as error:
    assert any(name in str(error) for name in environ) or 'processes on this node' in str(error), error
  else:
    assert membership is None or (0 <= membership.process_id < membership.num_processes
                                  and coordinator.host_and_port(membership.address))


# Addresses


@pytest.mark.parametrize('text, host, port, shown', [
  ('node7:1234', 'node7', 1234, 'node7:1234'), ('a.b-c_d.:1', 'a.b-c_d.', 1, 'a.b-c_d.:1'),
  ('10.0.0.1:65535', '10.0.0.1', 65535, '10.0.0.1:65535'), ('[::1]:80', '::1', 80, '[::1]:80'),
  ('::1:80', '::1', 80, '[::1]:80'), ('2001:db8::7:8080', '2001:db8::7', 8080, '[2001:db8::7]:8080'),
  ('[fe80::1%eth0]:5', 'fe80::1%eth0', 5, '[fe80::1%eth0]:5')])
def test_addresses(text, host, port, shown):
  assert coordinator.host_and_port(text) == (host, port)
  assert coordinator.join_host_port(host, port) == shown
  assert coordinator.host_and_port(shown) == (host, port)


@pytest.mark.parametrize('text', [
  '', ':', 'node', ':1', 'node:', 'node:x', 'node:0', 'node:65536', 'node:²', 'node:-1', 'http://node:1',
  'node:1/', 'a b:1', ' node:1', 'node:1 ', 'node: 1', 'node\n:1', '::1', '[::1]', 'fe80::1', '[node]:1',
  '[]:1', 'a:b:1', '1:2:3:4:5:6:7:8',
  '256.0.0.1:1', '1.2.3:4', 'a..b:1', '-a:1', f'{"a" * 64}:1', 'ä:1', '*:1'])
def test_what_is_no_address(text):
  with pytest.raises(InputError, match=r'is not HOST:PORT: .+'):
    coordinator.host_and_port(text)


@pytest.mark.parametrize('environ, expected', [
  ({}, 'node'), ({'no_proxy': 'a, .b'}, 'a, .b,node'), ({'no_grpc_proxy': 'c', 'no_proxy': 'a'}, 'c,node'),
  ({'no_grpc_proxy': '', 'no_proxy': 'a'}, 'node'), ({'no_grpc_proxy': 'node,x'}, 'node,x'),
  ({'no_proxy': ','}, 'node')])
def test_hosts_without_a_proxy(environ, expected):
  assert coordinator.no_grpc_proxy(environ, 'node') == expected


# GPUs


def slurm(visible=None, on_node=None, **more):
  both = {'CUDA_VISIBLE_DEVICES': visible, 'SLURM_GPUS_ON_NODE': on_node, **more}
  return {name: value for name, value in both.items() if value is not None}


@pytest.mark.parametrize('environ, me, n, gpus, expected', [
  ({}, 0, 1, 8, None), (slurm('0,1,2,3', '4'), 0, 1, 4, None),                # one task, all that it sees
  (slurm('0,1,2,3', '4'), 0, 4, 4, [0]), (slurm('0,1,2,3', '4'), 3, 4, 4, [3]),
  (slurm('0,1,2,3,4,5,6,7', '8'), 1, 2, 8, [4, 5, 6, 7]),                     # two tasks, four each
  (slurm('4,5,6,7', '4'), 1, 2, 8, [2, 3]),                                   # of eight; JAX counts from 0
  (slurm('3', '4'), 3, 4, 4, None), (slurm('0', '4'), 3, 4, 4, None),         # --gpus-per-task=1
  (slurm('2,3', '4'), 1, 2, 4, None), (slurm('0,1', '8', SLURM_GPUS_PER_TASK='2'), 1, 4, 8, None),
  (slurm('0,1', SLURM_GPUS_PER_TASK='volta:1,kepler:1'), 1, 2, 4, None),
  (slurm('0,1', SLURM_GPUS_PER_TASK='a100:2'), 1, 2, 4, None), (slurm('0,1'), 1, 2, 4, [1]),
  (slurm('0,1', '8', SLURM_GPUS_PER_TASK='2'), 1, 2, 8, None),                # four of eight are nobody's
  (slurm('', '8'), 1, 2, 8, None),                                            # none is visible
  (slurm(on_node='4'), 1, 2, 0, [2, 3]), ({}, 1, 2, 4, [2, 3]), ({}, 1, 2, 0, None),
  (slurm('', '0'), 1, 2, 4, None), (slurm('NoDevFiles'), 1, 2, 4, None), (slurm('-1'), 1, 2, 4, None),
  (slurm('GPU-8f,GPU-9a'), 1, 2, 4, [1]), (slurm('MIG-1,MIG-2'), 0, 2, 4, [0]),
  (slurm('0,-1,1', '1'), 0, 1, 4, None),
  ({'JAX_PLATFORMS': 'cpu'}, 1, 3, 4, None), ({'JAX_PLATFORMS': 'cuda,cpu'}, 1, 2, 4, [2, 3]),
  ({'JAX_LOCAL_DEVICE_IDS': '2,0'}, 1, 3, 4, [2, 0]), ({'JAX_CUDA_VISIBLE_DEVICES': '1'}, 1, 3, 4, None),
  ({'JAX_CUDA_VISIBLE_DEVICES': 'all'}, 1, 2, 2, [1])])
def test_gpus_of_a_process(environ, me, n, gpus, expected):
  assert local_device_ids(environ, me, n, gpus) == expected


@pytest.mark.parametrize('environ, n, gpus, says', [
  ({}, 3, 4, '3 processes on this node cannot share 4 GPUs'),
  (slurm('0,1', '2'), 4, 8, 'cannot share 2 GPUs'),
  (slurm('0,1,2,3', '8'), 8, 8, '8 tasks share 8 GPUs'), (slurm('0', '2'), 4, 8, '4 tasks share 2 GPUs'),
  (slurm('0,1', '8'), 2, 8, '2 tasks share 8 GPUs of this node, but each sees 2 .*CUDA_VISIBLE_DEVICES=0,1'),
  (slurm('2,3', '8'), 2, 8, '2 tasks share 8 GPUs'),
  (slurm('0', '8', SLURM_GPUS_PER_TASK='2'), 2, 8, 'each sees 1'),
  (slurm('0,1', '8', SLURM_GPUS_PER_TASK='2'), 5, 8, '5 tasks share 8 GPUs'),
  (slurm('0,1', 'x'), 2, 2, "SLURM_GPUS_ON_NODE='x' is not a non-negative integer")])
def test_gpus_that_cannot_be_divided(environ, n, gpus, says):
  with pytest.raises(InputError, match=says):
    local_device_ids(environ, 0, n, gpus)


@given(n=st.integers(1, 16), share=st.integers(1, 8))
def test_shared_gpus_are_used_once_each(n, share):
  environ = slurm(','.join(map(str, range(n * share))), str(n * share))
  used = [local_device_ids(environ, me, n, 0) or range(share * n) for me in range(n)]
  assert [i for ids in used for i in ids] == list(range(n * share))


def test_the_tasks_of_a_node_share_its_gpus():
  """Of 3 nodes with 2, 2 and 1 tasks."""
  five = {**STEP, 'SLURM_STEP_NUM_TASKS': '5', 'SLURM_STEP_TASKS_PER_NODE': '2(x2),1',
          **slurm('0,1,2,3', '4')}
  assert decide({**five, 'SLURM_NODEID': '1', 'SLURM_LOCALID': '1'}).local_device_ids == [2, 3]
  assert decide({**five, 'SLURM_NODEID': '2', 'SLURM_LOCALID': '0'}).local_device_ids is None
  old = without(STEP, 'SLURM_STEP_TASKS_PER_NODE')
  assert decide({**old, **slurm('0,1', '2')}).local_device_ids == [1]
  assert decide({**old, 'SLURM_NTASKS_PER_NODE': '2', **slurm('0,1', '2')}).local_device_ids == [1]
  assert decide(MPI, gpus=4).local_device_ids == [2, 3]
  assert decide(TPU, tpu_vm=True, gpus=4).local_device_ids is None


@given(st.text(alphabet='0123456789,-GPUMI ', max_size=20))
def test_visible_gpus_never_fail(text):
  assert 0 <= visible_gpus({'CUDA_VISIBLE_DEVICES': text}) <= len(text)


def test_this_process_reads_its_own_environment(monkeypatch):
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'OMPI_', 'TPU_', 'MEGASCALE_', 'KUBERNETES_')):
      monkeypatch.delenv(name)
  assert cluster.detect_here(None, None, None) is None
  for name, value in STEP.items():
    monkeypatch.setenv(name, value)
  assert cluster.detect_here(None, None, None)[:3] == ('n7:61441', 4, 3)
