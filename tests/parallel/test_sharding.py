"""The mesh: the same losses and gradients on any of them, and refusals with the numbers in them."""

import functools
import itertools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from gptjax.parallel import sharding
from gptjax.train.step import dropout_keys, graph, init_state, loss_and_grads

MESHES = [dict(), dict(data=8), dict(fsdp=8), dict(data=2, fsdp=2, tensor=2),
          dict(replica=2, fsdp=2, tensor=2), dict(fsdp=2, tensor=4)]
SCANS, REMATS, PARTS, DROPOUTS = [True, False], ['none', 'dots', 'full'], [1, 4], [0.0, 0.1]
CASES = list(itertools.product(MESHES, SCANS, REMATS, PARTS, DROPOUTS))
# Each mesh once, and each value of the others at least twice.
FEW = [(mesh, SCANS[i % 2], REMATS[i % 3], PARTS[i // 3], DROPOUTS[(i + 1) // 2 % 2])
       for i, mesh in enumerate(MESHES)]


def loss_and_gradients(config, mesh_sizes):
  """(loss, gradients as NumPy arrays) of one random batch."""
  batch = random_batch(config, ignored=0.2)
  with mesh_of(**mesh_sizes) as mesh:
    params = jax.jit(lambda: init_state(config).params)()
    step = jax.jit(lambda params, batch: loss_and_grads(
      params, batch, dropout_keys(config, 3), config, graph(config)))
    return jax.device_get(step(params, sharding.shard_batch(batch, mesh)))


REFERENCE = {}


def check_case(mesh_sizes, scan, remat, parts, dropout):
  batch = {'train.batch_size': 32, 'train.microbatch_size': 32 // parts}
  if dropout not in REFERENCE:
    REFERENCE[dropout] = loss_and_gradients(
      tiny_config(**{'model.dropout': dropout, 'train.batch_size': 32}), dict())
  want_loss, want = REFERENCE[dropout]
  config = tiny_config(**{'model.dropout': dropout, 'model.scan': scan, 'model.remat': remat}, **batch)
  loss, grads = loss_and_gradients(config, mesh_sizes)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  for got, true in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(got, true, atol=1e-5 * np.abs(true).max(), rtol=1e-4)


@pytest.mark.ci
@pytest.mark.parametrize('case', FEW, ids=str)
def test_mesh_scan_remat_microbatches_and_dropout_leave_the_gradient_as_it_is(case):
  check_case(*case)


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES, ids=str)
def test_the_whole_matrix(case):
  check_case(*case)


@given(rows=st.integers(1, 60_000), size=st.integers(1, 60_000))
def test_blocks_hold_all_rows_in_no_more_than_twice_the_blocks_that_are_needed(rows, size):
  n, least = sharding.count_blocks(rows, size), math.ceil(rows / size)
  assert least <= n < 2 * least and math.ceil(rows / n) <= size
  dividing = [blocks for blocks in range(least, 2 * least) if rows % blocks == 0]
  assert n == min(dividing, default=least)


@pytest.mark.parametrize('tensor', [1, 2])
@pytest.mark.parametrize('size', [1, 5, 6, 100])
def test_rows_of_blocks_are_those_of_the_array(tensor, size):
  x = np.arange(44 * 3).reshape(44, 3)
  with mesh_of(tensor=tensor):
    placed = jax.reshard(x, sharding.compute_spec('vocab', None))
    blocks = np.asarray(jax.jit(functools.partial(sharding.split_into_blocks, size=size, value=-1))(placed))
  assert blocks.shape[1] <= size * tensor
  rows = blocks.reshape(-1, 3)
  assert sorted(map(tuple, rows[rows[:, 0] >= 0])) == sorted(map(tuple, x))


def test_heads_that_the_mesh_cannot_divide_stay_whole():
  config = tiny_config(**{'model.n_head': 2})
  want_loss, want = loss_and_gradients(config, {})
  loss, grads = loss_and_gradients(config, dict(fsdp=2, tensor=4))
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  for got, true in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(got, true, atol=1e-5 * np.abs(true).max(), rtol=1e-4)


def test_dropout_matters_and_follows_step_and_seed():
  config = tiny_config(**{'model.dropout': 0.1})
  with mesh_of() as mesh:
    params = jax.jit(lambda: init_state(config).params)()
    batch = sharding.shard_batch(random_batch(config), mesh)
    loss = jax.jit(lambda keys: loss_and_grads(params, batch, keys, config, graph(config))[0])
    losses = []
    for seed, step in ((0, 3), (0, 4), (1, 3)):
      config.train.seed = seed
      losses.append(float(loss(dropout_keys(config, step))))
  assert len(set(losses)) == 3, losses


def test_state_is_spread_over_fsdp_and_tensor():
  config = tiny_config()
  whole = sum(x.nbytes for x in jax.tree.leaves(state_of(config, dict())))
  for sizes, share in ((dict(fsdp=8), 8), (dict(fsdp=4, tensor=2), 8), (dict(data=8), 1)):
    state = state_of(config, sizes)
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    # Biases and gains are whole everywhere: a few per cent at this width.
    assert whole / share <= held <= whole / share * 1.35, (sizes, held, whole)


def state_of(config, sizes):
  with mesh_of(**sizes):
    return jax.jit(lambda: init_state(config))()


def test_fresh_weights_do_not_depend_on_the_mesh():
  config = tiny_config()
  reference = jax.device_get(state_of(config, dict()).params)
  for sizes in (dict(data=8), dict(fsdp=2, tensor=4), dict(replica=2, data=2, fsdp=2)):
    for got, want in zip(jax.tree.leaves(jax.device_get(state_of(config, sizes).params)),
                         jax.tree.leaves(reference), strict=True):
      np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('sizes, message', [
  (dict(data=3), 'takes 3 devices.*but there are 8'),
  (dict(data=-1, fsdp=-1), 'at most one may be -1'),
  (dict(data=-1, fsdp=3), 'but there are 8'),
  (dict(data=0), 'sizes must be positive')])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, message):
  from types import SimpleNamespace
  sizes = SimpleNamespace(**{'replica': 1, 'data': 1, 'fsdp': 1, 'tensor': 1, **sizes})
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(sizes)


@pytest.mark.parametrize('changes, sizes, field', [
  ({'train.batch_size': 12}, dict(data=8), 'train.batch_size = 12'),
  ({'train.batch_size': 16, 'train.microbatch_size': 4}, dict(fsdp=8), 'train.microbatch_size = 4'),
  ({'model.n_embd': 36}, dict(fsdp=8), 'model.n_embd = 36'),
  ({'model.n_inner': 36}, dict(tensor=8), 'model.n_inner = 36')])
def test_a_model_or_batch_that_the_mesh_cannot_divide_is_refused(changes, sizes, field):
  config = tiny_config(**changes)
  with mesh_of(**sizes) as mesh, pytest.raises(ValueError, match=field):
    sharding.check(config, mesh)


def test_a_weight_is_gathered_the_same_way_on_all_devices():
  """By name, as on accelerators, or by a reshard, as where collectives have one channel; gradients too."""
  rng = np.random.default_rng(0)
  x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 24), (24, 10)))

  def found(kinds):
    def loss(w, x):
      return jnp.sin(jnp.einsum('ni,io->no', x, sharding.gather(w, 'embed', 'mlp'))).sum()
    with mock.patch.object(sharding, 'ONE_CHANNEL', kinds), mesh_of(fsdp=4, tensor=2) as mesh:
      stored = jax.device_put(w, jax.NamedSharding(mesh, sharding.storage_spec('embed', 'mlp')))
      compiled = jax.jit(jax.value_and_grad(loss)).lower(stored, sharding.shard_batch(x, mesh)).compile()
      return jax.device_get(compiled(stored, sharding.shard_batch(x, mesh))), compiled.as_text()
  (one, by_name), (other, by_reshard) = found(()), found(('cpu',))
  assert 'reduce-scatter' in by_name and 'reduce-scatter' not in by_reshard
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one, other)


@pytest.mark.parametrize('sizes, says', [
  (dict(data=8), ''), (dict(fsdp=8), 'replica = 1 is not a multiple of the 2 slices or hosts'),
  (dict(data=2, fsdp=4), 'slices or hosts'), (dict(replica=2, fsdp=4), '')])
def test_a_mesh_that_sends_weights_between_hosts_is_reported(sizes, says, monkeypatch):
  """With replica = 1, data parallelism sends nothing but gradients either."""
  with mesh_of(**sizes) as mesh:
    monkeypatch.setattr(sharding, 'slice_count', lambda devices: 2)
    warnings = sharding.mesh_warnings(tiny_config(), mesh)
  assert bool(warnings) == bool(says) and says in ''.join(warnings)
