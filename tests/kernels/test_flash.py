"""Our own kernels of attention, as a CPU computes them, beside the equation with the same weights dropped."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from kernels import plain

from gptjax import defaults
from gptjax.benchmark.subjects import attention as attention_benchmark
from gptjax.kernels import dropout_hash, flash
from gptjax.model.attention import attention
from gptjax.parallel import sharding
from gptjax.plan import hlo
from gptjax.train import step

CUTS = (1, (16, 16, 4, 2)), (17, (16, 16, 4, 2)), (64, (32, 16, 4, 2)), (100, None)
interpreted = functools.partial(flash.attend, interpret=True)


def qkv(t, b=2, h=2, k=16, dtype='float32'):
  return jax.random.normal(jax.random.key(t), (3, b, t, h, k)).astype(dtype)


def keys_of(b):
  return jax.random.split(jax.random.key(1), b)


def with_gradients(attend, x):
  """(y, gradients of the sum of its squares with respect to q, k and v) of attend(q, k, v)."""
  square = lambda x: (attend(*x).astype(jnp.float32) ** 2).sum()
  return jax.jit(lambda x: (attend(*x), jax.grad(square)(x)))(x)


@pytest.fixture
def pallas_here(monkeypatch):
  """The kernels as a CPU computes them."""
  monkeypatch.setattr(flash, 'attend', interpreted)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('t, blocks', [*CUTS, (100, (32, 16, 4, 2))])
def test_equals_xla(t, blocks):
  with mesh_of():
    y, gradient = with_gradients(functools.partial(interpreted, blocks=blocks), qkv(t))
    want, wanted = with_gradients(functools.partial(attention, kernel='xla', rate=0.0, keys=None), qkv(t))
  np.testing.assert_allclose(y, want, atol=2e-6)
  np.testing.assert_allclose(gradient, wanted, atol=3e-5)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('t, blocks', CUTS)
def test_equals_the_equation_with_the_same_weights_dropped(t, blocks):
  rate, keys = 0.3, keys_of(2)
  with mesh_of():
    kept = dropout_hash.mask(keys, rate, 2, t)
    y, gradient = with_gradients(functools.partial(interpreted, rate=rate, keys=keys, blocks=blocks), qkv(t))
    equation = functools.partial(attention_benchmark.masked_attention, kept, rate, 0)
    want, wanted = with_gradients(equation, qkv(t))
  np.testing.assert_allclose(y, want, atol=2e-6)
  np.testing.assert_allclose(gradient, wanted, atol=3e-5)


def check_flash(t, group, window, segmented, rate, blocks=(32, 16, 4, 2)):
  options = dict(window=window, segments=plain.segments(t) if segmented else None, rate=rate)
  with mesh_of():
    kept = dropout_hash.mask(keys_of(2), rate, 4, t) if rate else True
    plain.check(functools.partial(interpreted, keys=keys_of(2), blocks=blocks, **options),
                *plain.inputs(t, group), kept=kept, **options)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('group, window, segmented', plain.CASES)
def test_equals_the_equation_with_repeated_heads(group, window, segmented):
  """Blocks of 32 queries and 16 keys of 70 positions: many are skipped; half of the cases have dropout."""
  check_flash(70, group, window, segmented, rate=0.3 * (window % 2))


@pytest.mark.slow
@pytest.mark.parametrize('t, blocks', [(1, (16, 16, 4, 2)), (70, (16, 16, 4, 2)), (150, None)])
@pytest.mark.parametrize('group, window, segmented', plain.ALL_CASES)
def test_equals_the_equation_with_repeated_heads_in_all_cases(group, window, segmented, t, blocks):
  for rate in (0.0, 0.3):
    check_flash(t, group, window, segmented, rate, blocks)


def test_reads_keys_and_values_as_they_are():
  x = plain.inputs(32, 4)
  with mesh_of():
    kernels = plain.kernel_inputs(functools.partial(interpreted, rate=0.1, keys=keys_of(2), window=5), *x)
  assert len(kernels) >= 3
  for shapes in kernels:
    sizes = [np.prod(shape) for shape in shapes]
    assert sizes.count(x[1].size) == 2  # k and v
    assert sizes.count(x[0].size) in (1, 2)  # q, and the gradient of y


@pytest.mark.ci
def test_blocks_before_the_window_are_not_read():
  """NaN there would be in the result: 0 times NaN is NaN."""
  q, k, v = plain.inputs(64, 2)
  with mesh_of():
    attend = functools.partial(interpreted, window=5, blocks=(16, 16, 4, 2))
    want = attend(q, k, v)
    y, pull = jax.vjp(attend, q, k.at[:, :32].set(jnp.nan), v.at[:, :32].set(jnp.nan))
    np.testing.assert_array_equal(y[:, 48:], want[:, 48:])
    assert jnp.isnan(y[:, 32]).all()
    dq, dk, dv = pull(jnp.ones_like(y))
    assert not jnp.isnan(dq[:, 48:]).any() and not (jnp.isnan(dk[:, 48:]) | jnp.isnan(dv[:, 48:])).any()


def test_bfloat16_is_as_near_to_float32_as_rounding_allows(pallas_here):
  """What `benchmark attention` says of a GPU, too."""
  case, c = attention_benchmark.Case('pallas', 0.1, 50), defaults.get_config().model
  c.update(dict(n_ctx=80, n_head=2, n_kv_head=1, head_size=64))
  x = attention_benchmark.random_inputs(c, 1)
  with mesh_of():
    ours = attention_benchmark.compile_case(case, x, keys_of(1))(x, keys_of(1))
    assert max(attention_benchmark.relative_errors(case, x, keys_of(1), ours)) < 0.01
    assert interpreted(*qkv(3, dtype='bfloat16')).dtype == jnp.bfloat16


@pytest.mark.ci
@pytest.mark.parametrize('h, j', [(4, 2), (3, 3)], ids=['heads divided', 'heads whole'])
def test_a_mesh_drops_the_same_weights_and_sends_nothing(h, j):
  rate, keys, t = 0.3, keys_of(4), 20
  segments, x = plain.segments(t, 4), plain.inputs(t, h // j, b=4, h=h)
  def attend(segments, keys, *x):
    attend = functools.partial(interpreted, rate=rate, keys=keys, window=9, segments=segments)
    return plain.with_gradients(attend, *x)
  with mesh_of():
    want = jax.device_get(attend(segments, keys, *x))
    kept = np.asarray(dropout_hash.mask(keys, rate, h, t))
    np.testing.assert_array_equal(dropout_hash.mask(keys[2:3], rate, h, t)[0], kept[2])
    np.testing.assert_array_equal(dropout_hash.mask(keys, rate, h, t - 7), kept[..., :t - 7, :t - 7])
  with mesh_of(data=2, tensor=2):
    rows, of_row = sharding.compute_spec('batch'), sharding.compute_spec('batch', None)
    place = sharding.compute_spec('batch', None, sharding.head_axis(j), None)
    arguments = jax.reshard(segments, of_row), jax.reshard(keys, rows), *jax.reshard(x, place)
    program = jax.jit(attend).lower(*arguments).compile()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), program(*arguments), want)
    assert not any(kind in program.as_text() for kind in hlo.COLLECTIVE_KINDS)


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_masks_are_as_of_independent_coins(rate):
  """Of keys as alike as can be: means, products of neighbours and of those further off, within 4.5 sigma."""
  words = np.array([[0, 0], [0, 1], [1, 0], [2**31, 0]], np.uint32)
  with mesh_of():
    kept = np.asarray(dropout_hash.mask(jax.random.wrap_key_data(words), rate, 4, 256))
  coins = (kept - (1 - rate)) / (rate * (1 - rate)) ** 0.5  # of mean 0 and variance 1
  for axes in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in (1, 2, 3, 4)):
    sums = coins.sum(axes) / np.prod([kept.shape[axis] for axis in axes]) ** 0.5
    assert abs(sums).max() < 4.5 + np.log10(sums.size) / 2  # the largest of so many
    if sums.size > 100:
      assert abs(sums.var() - 1) < 4.5 * (3 / sums.size) ** 0.5
  for steps in itertools.product((0, 1, 2), (0, 1, 2), (-16, -1, 0, 1, 2, 64), (0, 1, 2, 16, 64)):
    if any(steps):
      product = (coins * np.roll(coins, steps, (0, 1, 2, 3))).mean()
      assert abs(product) * kept.size ** 0.5 < 4.5, steps


@pytest.mark.ci
@pytest.mark.parametrize('changes', [
  {'model.dropout': 0.0, 'model.n_kv_head': 2, 'model.sliding_window': 7},
  {'model.remat': 'full', 'train.microbatch_size': 2}],
  ids=['no dropout, grouped, window', 'dropout, remat, in microbatches'])
def test_a_model_trains_the_same_on_any_mesh(pallas_here, changes):
  """Without dropout as with xla; with it, as the model in one piece does on one device."""
  def gradients(sizes, kernel, changes):
    config = tiny_config(**{'model.dropout': 0.2, 'model.n_embd': 64, 'train.batch_size': 4, **changes})
    config.attention.kernel = kernel
    with mesh_of(**sizes) as mesh:
      batch = sharding.shard_batch(random_batch(config), mesh)
      state = jax.jit(functools.partial(step.init_state, config))()
      keys = step.dropout_keys(config, 0)
      grads = functools.partial(step.loss_and_grads, config=config, graphdef=step.graph(config))
      return jax.device_get(jax.jit(grads)(state.params, batch, keys))
  dropped = 'model.dropout' not in changes
  want = gradients({}, 'pallas', {}) if dropped else gradients({}, 'xla', changes)
  found = gradients(dict(data=2, tensor=2), 'pallas', changes)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6, rtol=1e-4), found, want)
