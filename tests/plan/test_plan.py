"""Plans: FLOPs match an equation, and bytes match those of arrays on devices."""

import functools
import importlib
import re
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of, random_batch, tiny_config

from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.model import size
from gptjax.parallel import sharding
from gptjax.plan import estimate, hardware, hlo, kernels, program, report, search, topology, traffic
from gptjax.pretrain import trace
from gptjax.train import step

SIZES = ('gpt2_small', 'gpt2_medium', 'gpt2_large', 'gpt2_xl', 'gpt1')


def named(name, device=None, **changes):
  """A config of configs/, resolved, for `device` if it is not present; changes as {'model.remat': 'full'}."""
  config = importlib.import_module(f'configs.{name}').get_config()
  search.apply_settings(config, changes)
  configs.resolve(config, 'unused', device)
  return config


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', SIZES)
def test_flops_match_the_equation(name):
  """Layers, microbatches and chunks of the loss are loops; the attention's square is not all computed."""
  config = named(name, **{'train.batch_size': 2, 'train.microbatch_size': 1, 'train.steps': 1, 'mesh.data': 1,
                          'mesh.fsdp': 1, 'model.remat': 'none', 'model.scan': True, 'model.dropout': 0.0})
  with mesh_of() as mesh:
    counted = hlo.flops(program.compile_step(config, mesh).as_text())
  seq_len = config.data.seq_len
  assert counted == pytest.approx(2 * seq_len * size.flops_per_token(config.model, seq_len)['causal'],
                                  rel=0.02)


def test_rematerialization_is_counted():
  config = tiny_config(**{'model.n_layer': 4, 'model.remat': 'full'})
  none = tiny_config(**{'model.n_layer': 4})
  with mesh_of() as mesh:
    full, less = (hlo.flops(program.compile_step(c, mesh).as_text()) for c in (config, none))
  assert 1.1 < full / less < 4 / 3


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('sizes', [dict(fsdp=4), dict(data=2, tensor=2)], ids=str)
def test_state_bytes_match_the_arrays_on_a_device(sizes):
  config = tiny_config(**{'train.microbatch_size': 4})
  with mesh_of(**sizes) as mesh:
    compiled, cost = program.compile_and_cost(config, mesh)
    state = jax.jit(functools.partial(step.init_state, config))()
    batch = sharding.shard_batch(random_batch(config), mesh)
    here = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    assert (cost.params, cost.optimizer, cost.batch) == tuple(
      map(here, (state.params, state.opt_state, batch)))
    counters = here((state.step, state.skipped, state.loss_ema))
    assert (cost.params + cost.optimizer + cost.batch + counters
            == compiled.memory_analysis().argument_size_in_bytes)
    compiled(state, batch)  # and it runs
    parts = estimate.memory_by_kind(config, mesh, cost)
  assert sum(size for kind, size in parts.items() if kind != 'peak') >= parts['peak'] == cost.peak


@pytest.mark.parametrize('remat, least, most', [('full', 1, 1.01), ('dots', 8, 10), ('none', 20, 30)])
def test_activations_of_a_layer_are_its_input_its_matmuls_or_all(remat, least, most):
  def kept(n_layer):
    config = tiny_config(**{'model.remat': remat, 'model.n_layer': n_layer, 'model.dropout': 0.1})
    with mesh_of(fsdp=2) as mesh:
      return estimate.activation_bytes(config, mesh)
  one = 4 * 4 * 24 * 32  # float32[b, t, d] of a device
  assert least * one <= (kept(6) - kept(4)) / 2 <= most * one


def test_a_kernel_takes_the_time_of_its_lower_ceiling():
  device = hardware.Device(flops=10.0, memory=1, bandwidth=5.0, intra_bandwidth=2.0, inter_bandwidth=1.0)
  kernels = [traffic.Kernel('product', 3, 100, 5), traffic.Kernel('sum', 2, 0, 50)]
  sent = {('intra', 'all-gather'): 8, ('intra', 'all-reduce'): 2, ('inter', 'all-reduce'): 90}
  assert estimate.step_seconds(kernels, sent, device) == pytest.approx(
    {'compute': 30, 'memory': 23, 'kernels': 50, 'memory_bound': 20, 'intra': 5, 'inter': 90, 'step': 90,
     'serial': 145})


def test_a_kernel_reads_only_its_slice_of_stacked_layers():
  w, x = np.ones((50, 64, 64), np.float32), np.ones((8, 64), np.float32)
  layers = lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]
  text = jax.jit(layers).lower(x, w).compile().as_text()
  moved = sum(one.runs * one.bytes for one in traffic.kernels(text))
  assert w.nbytes <= moved < 5 * w.nbytes  # and not fifty times as much


@pytest.mark.parametrize('groups, far', [([[0, 1], [2, 3]], False), ([[0, 2], [1, 3]], True)])
def test_a_collective_across_slices_uses_the_network_between_them(groups, far):
  mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform='tpu', slice_index=n // 2)
                                           for n in range(4)]))
  assert estimate.crosses_networks(hlo.Collective('all-reduce', [8], np.array(groups), 1, 0), mesh) == far


def test_a_host_transfer_between_slices_is_a_collective():
  text = '''
ENTRY %main (x: f32[64]) -> f32[64] {
  %send = (f32[64]{0}, u32[], token[]) send(%x, %t), channel_id=1, frontend_attributes=\
{_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
}'''
  one, = hlo.collectives(text)
  assert (one.kind, one.sizes, one.between_slices) == ('all-reduce', [256], True)
  assert hlo.sent_bytes(one) == 256  # of two, each sends half of it twice


@pytest.mark.ci
def test_the_search_ranks_valid_settings_and_prints_the_flags():
  config = tiny_config(**{'train.batch_size': 16, 'train.microbatch_size': 2})  # of 2 nothing is made
  devices, device = jax.devices()[:4], hardware.Device(1e9, 1e9, 1e9, 1e8, 1e7)
  for settings in search.candidates(config, devices):
    search.apply_settings(config, settings)
    sharding.check(config, sharding.make_mesh(config.mesh, devices))
  found = search.search(config, devices, device, 2)
  assert [plan.seconds['step'] for _, plan in found] == sorted(plan.seconds['step'] for _, plan in found)
  said = report.ranking_table(found, 'four CPUs', device)
  assert f'--config.mesh.fsdp={found[0][0]["mesh.fsdp"]}' in said.splitlines()[-1]
  with pytest.raises(ValueError, match='too little memory'):
    search.search(config, devices, device._replace(memory=1e4), 2)


def test_a_plan_is_printed_completely():
  config = tiny_config(**{'train.microbatch_size': 4})
  device = hardware.DEVICES['v5e']
  with mock.patch.object(sharding, 'ONE_CHANNEL', ()), mesh_of(fsdp=4) as mesh:  # as on that device
    plan = estimate.plan(config, mesh, device)
    said = report.plan_text(plan, config, mesh, 'v5e:2x2', device, price=2.0)
  for word in ('params', 'optimizer', 'gradients', 'activations', 'temporaries', 'peak', 'reduce-scatter',
               'fits (', 'tokens/s, MFU', 'days for', 'at $2 per device and hour'):
    assert word in said, word


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('flags, said', [
  (['--config=configs/gpt2_xl.py'], '--topology is missing'),
  (['--config=configs/gpt2_xl.py', '--topology=v9:2x2'], 'v4, v5e, v5p, v6e, h100, a100'),
  (['--config=configs/gpt2_xl.py', '--config.model.rematt=full'], 'config.model.remat?')])
def test_a_wrong_flag_raises_an_error_of_one_line(flags, said):
  done = subprocess.run([sys.executable, '-m', 'gptjax.plan', *flags], cwd=ROOT, env=ENVIRONMENT,
                        capture_output=True, text=True)
  assert done.returncode == 2 and said in done.stderr and done.stderr.count('\n') == 1, done.stderr


@pytest.mark.parametrize('name, said', [
  ('v5e:2x2x2x2', 'has 2 dimensions'), ('v5e:banana', 'is not a topology'), ('x1:2x2', 'is not a topology'),
  ('h100:8x8x8', 'is not a topology'), ('v5p:4x4', 'has 3 dimensions')])
def test_an_impossible_topology_raises_an_error(name, said):
  with pytest.raises(ValueError, match=said):
    topology.describe(name)


@pytest.mark.parametrize('name, extra, error', [
  ('h100:8', 'plan-gpu', NotImplementedError('topology not implemented for cuda')),
  ('v5e:2x4', 'plan-tpu', RuntimeError('JAX TPU support not installed; cannot generate TPU topology.'))])
def test_the_message_about_a_missing_compiler_has_the_package(monkeypatch, name, extra, error):
  def absent(*args, **kwargs):
    raise error
  monkeypatch.setattr(topology.topologies, 'get_topology_desc', absent)
  with pytest.raises(ValueError, match=rf'pip install .gptjax\[{extra}\]'):
    topology.describe(name)


@pytest.mark.plan
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('name', [*SIZES, 'quickstart'])
def test_every_config_compiles_for_tpus_with_minimal_communication(name):
  """Weights are gathered, gradients reduce-scattered; permutes are for shards that are not whole tiles."""
  pytest.importorskip('libtpu')
  devices = topology.describe('v5e:2x4')
  config = named(name, devices[0], **{'mesh.data': 1, 'mesh.fsdp': 8, 'train.batch_size': 64,
                                      'train.microbatch_size': 32, 'model.remat': 'full'})
  mesh = sharding.make_mesh(config.mesh, devices)
  if config.optimizer.name == 'muon':  # it compiles; how X X^T is summed over devices is left to XLA
    program.compile_step(config, mesh)
    config.optimizer.name = 'adamw'
  _, cost = program.compile_and_cost(config, mesh)
  moved = hlo.by_kind(cost.collectives, hlo.full_bytes)
  matrices = 2 * sum(x.size for x in jax.tree.leaves(trace.step_shapes(config, mesh)[0].params)
                     if x.ndim > 2)
  assert moved.pop('collective-permute', 0) < 0.1 * moved['all-gather']
  assert moved.keys() == {'all-gather', 'all-reduce', 'reduce-scatter'}
  assert moved['reduce-scatter'] >= 2 * matrices and moved['all-reduce'] < 0.02 * moved['reduce-scatter']
  assert cost.peak < hardware.DEVICES['v5e'].memory


@pytest.mark.plan
@pytest.mark.parametrize('sequences, code, said', [
  (32, 0, ('mesh fsdp 8', 'fits (', 'reduce-scatter')), (2**17, 2, ('does not fit', 'GiB of 15.75GiB'))])
def test_the_command_plans_a_config_for_a_slice(sequences, code, said):
  pytest.importorskip('libtpu')
  batch = [f'--config.train.{field}={sequences}' for field in ('batch_size', 'microbatch_size')]
  done = subprocess.run([sys.executable, '-m', 'gptjax.plan', '--config=configs/quickstart.py',
                         '--topology=v5e:2x4', '--config.mesh.fsdp=8', '--config.mesh.data=1', '--price=1',
                         *batch], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
  assert done.returncode == code, done.stderr
  for words in said:
    assert words in (done.stderr if code else done.stdout)


def described(name):
  """Return devices; the test is skipped, with the package to install, if their compiler is missing."""
  try:
    return topology.describe(name)
  except ValueError as error:
    pytest.skip(str(error))


# Products with half of the scores' square that a layer takes: six by the equation. Both kernels compute the
# scores again in the backward pass; splash, in blocks of half a sequence, 3/4 of the square; ours twice.
@pytest.mark.plan
@pytest.mark.parametrize('name, kernel, calls, products', [
  *((name, 'splash', ('splash_mha_fwd', 'splash_mha_dkv'), 7 * 3 / 2)
    for name in ('v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2')),
  *((name, 'cudnn', ('__cudnn$fmhaSoftmax"', '__cudnn$fmhaSoftmaxBackward"'), 7)
    for name in ('h100:1', 'h100:8', 'a100:8')),
  *((name, 'pallas', ('flash_forward', 'flash_dq', 'flash_dkv'), 9)
    for name in ('h100:1', 'h100:8', 'a100:8'))])
def test_the_step_uses_the_kernel_of_its_device_without_communication(name, kernel, calls, products):
  devices = described(name)
  config = named('gpt2_small', devices[0], **{
    'model.n_layer': 2, 'model.n_vocab': 1024, 'mesh.data': 1, 'mesh.fsdp': -1,
    'train.batch_size': 5 * len(devices), 'train.microbatch_size': 5 * len(devices),
    **({'attention.kernel': 'pallas', 'model.dropout': 0.1} if kernel == 'pallas' else {})})
  compiled, cost = program.compile_and_cost(config, sharding.make_mesh(config.mesh, devices))
  text = compiled.as_text()
  assert config.attention.kernel == kernel
  assert all(call in text for call in calls)
  t, c = config.data.seq_len, config.model
  work = size.flops_per_token(c, t)['causal'] + (products - 6) * c.n_layer * c.n_embd * t
  assert cost.flops == pytest.approx(5 * t * work, rel=0.02)  # five on each device: no weight is so large
  heads = {n * 5 * t * c.n_embd * width for n in (1, 3) for width in (2, 4)}  # bytes of q, or of q, k and v
  assert not heads & {size for one in cost.collectives for size in one.sizes}


# Of 1,024 keys, a query attends to 224 on average; splash computes 3 of the 4 blocks of 512 queries and keys.
@pytest.mark.plan
@pytest.mark.parametrize('name, kernel, call, products, attended', [
  *((name, 'splash', 'splash_mha_(fwd|dkv)', 7, 768) for name in ('v4:2x2x1', 'v5e:2x2')),
  *((name, 'cudnn', '__cudnn.fmha', 7, 224) for name in ('h100:1', 'h100:8')),
  *((name, 'pallas', 'flash_(forward|dq|dkv)', 9, 224) for name in ('h100:1', 'a100:8'))])
def test_grouped_heads_and_a_window_cost_what_they_need(name, kernel, call, products, attended):
  """Kernels read the keys and values of 4 heads, not of 12, and skip what is before the window."""
  devices = described(name)
  tensor = min(2, len(devices))
  shards = len(devices) // tensor
  config = named('gpt2_small', devices[0], **{
    'model.n_layer': 2, 'model.n_vocab': 1024, 'model.n_kv_head': 4, 'model.sliding_window': 256,
    'model.remat': 'none', 'mesh.data': 1, 'mesh.fsdp': -1, 'mesh.tensor': tensor,
    'data.packing': kernel != 'cudnn',
    'train.batch_size': 5 * shards, 'train.microbatch_size': 5 * shards,
    **({'attention.kernel': 'pallas', 'model.dropout': 0.1} if kernel == 'pallas' else {})})
  assert config.attention.kernel == kernel
  compiled, cost = program.compile_and_cost(config, sharding.make_mesh(config.mesh, devices))
  queries, keys = (2 * 5 * 1024 * n // tensor * 64 for n in (12, 4))  # bytes on a device
  calls = [[sum(hlo.array_bytes(context.types[operand])) for operand in hlo.operands(instruction.rest)]
           for instruction, context in hlo.instructions(compiled.as_text())
           if instruction.op == 'custom-call' and re.search(call, instruction.name + instruction.rest)]
  assert calls and all(sizes.count(keys) == 2 and sizes.count(queries) in (1, 2, 3) for sizes in calls)
  c = config.model
  work = size.flops_per_token(c, 1024)['causal'] + 2 * c.n_layer * c.n_embd * (products * attended - 6 * 224)
  assert cost.flops == pytest.approx(5 * 1024 * work / tensor, rel=0.02)


@pytest.mark.plan
def test_unrolled_layers_save_only_what_the_backward_pass_reads():
  """GELU and norms are recomputed; if CSE merged them, a layer would save 20 widths."""
  devices = described('h100:1')
  def peak(n_layer):
    config = named('gpt2_small', devices[0], **{
      'model.n_layer': n_layer, 'model.n_vocab': 1024, 'model.remat': 'none', 'mesh.data': 1, 'mesh.fsdp': 1,
      'train.batch_size': 32, 'train.microbatch_size': 16})
    return program.compile_and_cost(config, sharding.make_mesh(config.mesh, devices))[1].peak
  width, weights = 16 * 1024 * 768 * 2, 12 * 768**2 * 4  # of activations; of a layer
  assert (peak(4) - peak(2)) / 2 - 4 * weights <= 17 * width


@pytest.mark.plan
def test_kernels_and_blocks_are_compared():
  devices, device = described('v5e:2x2'), hardware.DEVICES['v5e']
  config = tiny_config(**{'model.n_head': 2, 'model.n_embd': 128, 'model.n_ctx': 256, 'data.seq_len': 256,
                          'model.compute_dtype': 'bfloat16'})
  mesh = sharding.make_mesh(config.mesh, devices)
  found = {one['kernel']: one for one in kernels.estimate_kernels(config, mesh, device)}
  assert [name for name in found if name.startswith('splash 256')] and 'splash 512' not in found
  # Seven products, where two backward kernels compute scores and their gradients twice: nine.
  assert found['splash 256, one backward kernel']['flops'] * 9 == found['splash 256']['flops'] * 7
  assert found['splash 128']['flops'] < found['splash 256']['flops']  # half a square, and a whole one
  said = kernels.table(list(found.values()), config, mesh, 'v5e:2x2')
  assert '2 sequences of 256, 2 heads of 64' in said and said.count('splash') == 8


@pytest.mark.plan
@pytest.mark.parametrize('name', ['h100:2x3', 'v5e:2x2x3'])
def test_only_replicas_are_on_different_slices_or_hosts(name):
  """Hosts of GPUs and slices of TPUs have a fast internal network; other axes stay within it."""
  devices = described(name)
  mesh = sharding.make_mesh(SimpleNamespace(replica=3, data=1, fsdp=-1, tensor=1), devices)
  islands = np.vectorize(sharding.slice_index)(mesh.devices).reshape(3, -1)
  assert sharding.slice_count(devices) == 3
  assert [len(set(row)) for row in islands] == [1, 1, 1] and len(set(islands[:, 0])) == 3


@pytest.mark.plan
@pytest.mark.parametrize('name, sizes', [
  ('v5p:4x4x4', dict(replica=1, data=8, fsdp=8, tensor=1)),
  ('v5p:4x4x4x2', dict(replica=2, data=-1, fsdp=8, tensor=1)),
  ('v5e:4x4', dict(replica=1, data=-1, fsdp=8, tensor=1))])
def test_an_axis_may_take_a_part_of_a_dimension_of_the_torus(name, sizes):
  devices = described(name)
  mesh = sharding.make_mesh(SimpleNamespace(**sizes), devices)
  assert len({device.id for device in mesh.devices.flat}) == len(devices) and mesh.shape['fsdp'] == 8


@pytest.mark.plan
def test_replicas_that_do_not_fit_the_slices_are_refused():
  with pytest.raises(InputError, match='replica = 1 is not a multiple of the 3 slices, between'):
    sharding.make_mesh(SimpleNamespace(replica=1, data=-1, fsdp=2, tensor=1), described('v5e:2x2x3'))
