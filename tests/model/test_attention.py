"""Causal attention against JAX's own, and dropout that depends on its sequence alone."""

import functools
import re
from collections import Counter
from types import SimpleNamespace

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, slow_except, tiny_config
from flax import nnx
from kernels import plain

from gptjax import defaults
from gptjax.config import resolve as configs
from gptjax.generate import kv_cache
from gptjax.kernels import fused
from gptjax.model import attention as attention_module
from gptjax.model.attention import attention, cached_attention
from gptjax.model.layers import dropout
from gptjax.parallel import sharding
from gptjax.plan import hlo
from gptjax.pretrain.trace import trace_step
from gptjax.train import step


def qkv(t, b=2, h=3, k=8):
  return jax.random.normal(jax.random.key(t), (3, b, t, h, k))


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('t', [1, 2, 127, 128, 129, 300])
def test_equals_the_plain_computation(t):
  x = qkv(t)
  plain = lambda x: jax.nn.dot_product_attention(*x, is_causal=True)
  ours = lambda x: attention(*x, kernel='xla', rate=0.0, keys=None)
  both = lambda f: jax.jit(lambda x: (f(x), jax.grad(lambda x: (f(x) ** 2).sum())(x)))
  with mesh_of():
    (y, gradient), (want, wanted_gradient) = both(ours)(x), both(plain)(x)
  np.testing.assert_allclose(y, want, atol=2e-6)
  np.testing.assert_allclose(gradient, wanted_gradient, atol=2e-5)


def dots(jaxpr):
  """All matmuls of a jaxpr and of those inside it."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from dots(inner)


def test_no_matmul_of_a_bfloat16_model_has_a_float32_operand():
  x, cotangent = qkv(16).astype('bfloat16'), qkv(16)[0].astype('bfloat16')
  def gradient(x):
    y, vjp = jax.vjp(lambda x: attention(*x, kernel='xla', rate=0.0, keys=None), x)
    return vjp(cotangent.astype(y.dtype))[0]
  with mesh_of():
    found = list(dots(jax.make_jaxpr(gradient)(x).jaxpr))
    exact = jax.jit(gradient)(x.astype('float32'))
    got = jax.jit(gradient)(x)
  assert len(found) == 4 * 6  # two matmuls forward and four backward, in each of the blocks of queries
  assert {operand.aval.dtype for dot in found for operand in dot.invars} == {jnp.dtype('bfloat16')}
  assert float(jnp.linalg.norm(got - exact) / jnp.linalg.norm(exact)) < 0.01


def compiled_operands(text):
  """The dtypes of the operands of all matmuls in the text of a compiled program."""
  types = dict(re.findall(r'%?([\w.\-]+)(?: =|:) (\w+)\[', text))
  operands = re.findall(r' dot\(([^)]*)\)', text)
  return Counter(tuple(types[name] for name in re.findall(r'%([\w.\-]+)', both)) for both in operands)


def test_a_cpu_multiplies_bfloat16_as_bfloat16():
  # XLA once computed what it transposed before in float32, and the sums over queries.
  def attend(y, cotangent):
    q, k, v = jnp.unstack(y.reshape(2, 64, 3, 2, 16).astype('bfloat16'), axis=2)
    f = lambda *x: attention(*x, kernel='xla', rate=0.0, keys=None)
    y, vjp = jax.vjp(f, q, k, v)
    return y, vjp(cotangent.astype('bfloat16'))
  with mesh_of():
    text = jax.jit(attend).lower(jnp.ones((2, 64, 96)), jnp.ones((2, 64, 2, 16))).compile().as_text()
  assert compiled_operands(text) == {('bf16', 'bf16'): 4 * 6}


@pytest.mark.parametrize('changes', [
  {}, {'model.mlp': 'gated', 'model.n_kv_head': 2, 'model.positions': 'rotary'}], ids=['gpt2', 'modern'])
def test_a_step_on_a_cpu_multiplies_bfloat16_alone(changes):
  config = tiny_config(**{'model.compute_dtype': 'bfloat16', **changes})
  with mesh_of() as mesh:
    state = jax.eval_shape(functools.partial(step.init_state, config))
    batch = sharding.shard_batch(random_batch(config), mesh)
    text = trace_step(config, mesh, 10, (state, batch)).lower().compile().as_text()
  assert set(compiled_operands(text)) == {('bf16', 'bf16')}


def test_gradients_of_keys_and_values_are_rounded_once_after_their_sum_over_blocks(monkeypatch):
  x, cotangent = qkv(64).astype('bfloat16'), qkv(65)[0, :, :64].astype('bfloat16')
  def gradient(n_blocks):
    monkeypatch.setattr(attention_module, 'N_QUERY_BLOCKS', n_blocks)
    with mesh_of():
      _, vjp = jax.vjp(lambda x: attention(*x, kernel='xla', rate=0.0, keys=None), x)
      return np.asarray(vjp(cotangent)[0], np.float32)
  whole, in_blocks = gradient(1), gradient(8)
  # One more rounding per block would differ by several units in the last place, which is 2^-8 of a value.
  np.testing.assert_allclose(in_blocks, whole, rtol=2 ** -7, atol=1e-3)
  assert (in_blocks != whole).mean() < 0.02


@pytest.mark.ci
def test_weights_dropped_at_the_given_rate_and_scaled():
  t = 200
  q, k, v = qkv(t)
  v = jnp.ones_like(v)  # each output is then the sum of the weights that are left
  keys = jax.random.split(jax.random.key(0), 2)
  with mesh_of():
    out = attention(q, k, v, kernel='xla', rate=0.25, keys=keys)
  assert abs(float(out.mean()) - 1) < 0.02
  assert float(out.std()) > 0.01


def test_a_mask_depends_on_its_sequence_alone():
  x = jax.random.normal(jax.random.key(0), (8, 5, 6))
  keys = jax.random.split(jax.random.key(1), 8)
  with mesh_of():
    whole = dropout(x, 0.5, keys)
    parts = jnp.concatenate([dropout(x[i:i + 2], 0.5, keys[i:i + 2]) for i in range(0, 8, 2)])
    assert (whole == parts).all()
    assert (dropout(x, 0.5, keys[::-1]) != whole).any()
    kept = np.asarray(whole != 0)
  np.testing.assert_array_equal(np.asarray(whole)[kept], np.asarray(x * 2)[kept])
  assert 0.3 < kept.mean() < 0.7


GPU = SimpleNamespace(platform='gpu', device_kind='NVIDIA H100', compute_capability='9.0')
TPU = SimpleNamespace(platform='tpu', device_kind='TPU v6 lite')


def config_on(device, **changes):
  """A config as written, resolved for a device that is not here."""
  config = defaults.get_config()
  config.train.steps = 1
  for name, value in changes.items():
    section, _, field = name.rpartition('.')
    (config[section] if section else config)[field] = value
  configs.resolve(config, '', device)
  return config


@pytest.mark.parametrize('device, changes, kernel', [
  (GPU, {}, 'cudnn'), (GPU, {'model.dropout': 0.1}, 'xla'), (GPU, {'model.compute_dtype': 'float32'}, 'xla'),
  (GPU, {'attention.kernel': 'pallas', 'model.dropout': 0.1}, 'pallas'),
  (GPU, {'attention.kernel': 'pallas', 'model.compute_dtype': 'float32', 'model.n_head': 6}, 'pallas'),
  (GPU, {'model.dropout': 0.1, 'job': 'evaluate'}, 'cudnn'), (GPU, {'model.n_head': 4}, 'xla'),
  (GPU, {'model.n_head': 4, 'model.head_size': 64}, 'cudnn'), (GPU, {'model.head_size': 20}, 'xla'),
  (GPU, {'model.n_kv_head': 4, 'model.sliding_window': 100}, 'cudnn'),
  (TPU, {'model.n_kv_head': 4, 'model.sliding_window': 100}, 'splash'),
  (GPU, {'data.packing': True}, 'xla'), (TPU, {'data.packing': True}, 'splash'),
  (SimpleNamespace(**{**vars(GPU), 'compute_capability': '7.0'}), {}, 'xla'),
  (SimpleNamespace(**{**vars(GPU), 'compute_capability': 'gfx942'}), {}, 'xla'),
  (TPU, {}, 'splash'), (TPU, {'model.dropout': 0.1}, 'xla'), (TPU, {'data.seq_len': 100}, 'xla'),
  (SimpleNamespace(platform='cpu'), {}, 'xla')])
def test_auto_is_the_best_that_device_and_settings_allow(device, changes, kernel):
  config = config_on(device, **changes)
  assert config.attention.kernel == kernel
  configs.check(config, device)


@pytest.mark.parametrize('device, kernel, changes, says', [
  (TPU, 'cudnn', {}, 'runs on a GPU, and this is a TPU'),
  (GPU, 'splash', {}, 'runs on a TPU, and this is a GPU'),
  (SimpleNamespace(platform='cpu'), 'splash', {}, 'runs on a TPU, and this is a CPU'),
  (GPU, 'cudnn', {'model.dropout': 0.1}, 'config.model.dropout = 0.1: set that to 0'),
  (TPU, 'splash', {'model.dropout': 0.1}, 'config.model.dropout = 0.1: set that to 0'),
  (GPU, 'cudnn', {'model.compute_dtype': 'float32'}, 'computes in bfloat16'),
  (GPU, 'cudnn', {'model.n_head': 4}, r'config.model.head_size \(0: n_embd / n_head\) is 192: set it to'),
  (GPU, 'cudnn', {'data.packing': True}, 'config.data.packing = True: set that to False, or the kernel'),
  (GPU, 'cudnn', {'model.head_size': 12}, r'head_size .* is 12: set it to xla'),
  (SimpleNamespace(**{**vars(GPU), 'compute_capability': '7.5'}), 'cudnn', {}, 'of Ampere or later'),
  (TPU, 'pallas', {'model.dropout': 0.1}, 'runs on a GPU, and this is a TPU: set it to xla or auto'),
  (GPU, 'pallas', {'model.n_head': 4}, 'the head sizes 16, 32, 64, 128, .* is 192: set it to xla'),
  (SimpleNamespace(**{**vars(GPU), 'compute_capability': 'gfx942'}), 'pallas', {}, 'of Ampere or later'),
  (SimpleNamespace(platform='tpu', device_kind='TPU v3'), 'splash', {}, 'v4 or later'),
  (GPU, 'flash', {}, 'must be one of auto, xla, cudnn, splash, pallas')])
def test_a_kernel_that_cannot_serve_is_refused_in_one_line(device, kernel, changes, says):
  with pytest.raises(ValueError, match=f'config.attention.kernel = .*{says}') as refused:
    configs.check(config_on(device, **{'attention.kernel': kernel, **changes}), device)
  assert '\n' not in str(refused.value)


def test_dropout_is_never_dropped_in_silence():
  keys = jax.random.split(jax.random.key(0), 2)
  with mesh_of(), pytest.raises(ValueError, match='cudnn does not support dropout'):
    attention(*qkv(8), kernel='cudnn', rate=0.1, keys=keys)


def test_segments_are_never_ignored_in_silence():
  with mesh_of(), pytest.raises(ValueError, match='cudnn does not support segments'):
    attention(*qkv(8), kernel='cudnn', rate=0.0, keys=None, segments=jnp.ones((2, 8), jnp.int32))


@pytest.fixture
def splash_here(monkeypatch):
  """Splash as a CPU computes it."""
  monkeypatch.setattr(fused, 'splash', functools.partial(fused.splash, interpret=True))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('sizes', [{}, dict(data=2, fsdp=2, tensor=2)], ids=['one device', 'a mesh'])
@pytest.mark.parametrize('t, h', [(256, 4), (200, 3)])
def test_splash_equals_xla_and_sends_nothing(splash_here, sizes, t, h):
  """200 positions are padded; 3 heads are whole on each tensor shard."""
  with mesh_of(**sizes):
    place = sharding.compute_spec(None, 'batch', None, sharding.head_axis(h), None)
    x = jax.random.normal(jax.random.key(t), (3, 4, t, h, 16), out_sharding=place)
    y, gradient, program = {}, {}, {}
    for kernel in ('xla', 'splash'):
      attend = lambda x: attention(*x, kernel=kernel, rate=0.0, keys=None)
      both = jax.jit(lambda x: (attend(x), jax.grad(lambda x: (attend(x) ** 2).sum())(x)))
      program[kernel] = both.lower(x).compile()
      y[kernel], gradient[kernel] = program[kernel](x)
    np.testing.assert_allclose(y['splash'], y['xla'], atol=2e-6)
    np.testing.assert_allclose(gradient['splash'], gradient['xla'], atol=2e-5)
    assert not hlo.collectives(program['splash'].as_text())


def test_block_sizes_divide_every_length():
  for t in range(128, 4097, 128):
    size = fused.block_sizes(t, 64).block_q
    assert t % size == 0 and size % 128 == 0


@pytest.mark.parametrize('k, t', [(64, 640), (128, 256)])
def test_splash_is_right_with_each_way_to_cut_it_up(k, t):
  """Heads as rows and as columns; the backward pass in one kernel and in two."""
  x = qkv(t, b=1, h=1, k=k)
  with mesh_of():
    square = lambda attend: jax.jit(jax.grad(lambda x: (attend(x) ** 2).sum()))(x)
    want = square(lambda x: attention(*x, kernel='xla', rate=0.0, keys=None))
    np.testing.assert_allclose(square(lambda x: fused.splash(*x, interpret=True)), want, atol=3e-5)


@pytest.mark.parametrize('kernel', ['splash', 'pallas'])
def test_kernels_equal_xla_with_grouped_heads_a_window_and_segments(splash_here, monkeypatch, kernel):
  from gptjax.kernels import flash
  monkeypatch.setattr(flash, 'attend', functools.partial(flash.attend, interpret=True))
  x, options = plain.inputs(90, 2), dict(window=40, segments=plain.segments(90))
  with mesh_of():
    ours, xla = (functools.partial(attention, kernel=name, rate=0.0, keys=None, **options)
                 for name in (kernel, 'xla'))
    plain.compare(plain.with_gradients(ours, *x), plain.with_gradients(xla, *x))


SPLASH = {
  'scanned': {},
  'unrolled, remat, scaled by layer': {
    'model.remat': 'full', 'model.scan': False, 'model.scale_attn_by_inverse_layer_idx': True,
    'model.scale_attn_weights': False},
  'grouped, window, remat': {
    'model.n_kv_head': 2, 'model.head_size': 12, 'model.sliding_window': 7, 'model.remat': 'full'}}


@pytest.mark.ci
@pytest.mark.parametrize('name', slow_except(SPLASH, 'grouped, window, remat'))
def test_a_model_trains_and_reads_the_same_with_splash(splash_here, name):
  made = {}
  for kernel in ('xla', 'splash'):
    config = tiny_config(**SPLASH[name], **{'train.batch_size': 4, 'train.microbatch_size': 4})
    config.attention.kernel = kernel
    with mesh_of(fsdp=2, tensor=2) as mesh:
      batch = sharding.shard_batch(random_batch(config), mesh)
      state = jax.jit(functools.partial(step.init_state, config))()
      grads = jax.jit(functools.partial(step.loss_and_grads, config=config, graphdef=step.graph(config)))
      loss, gradient = grads(state.params, batch, None)
      model = kv_cache.prepare_for_decoding(nnx.merge(step.graph(config), state.params))
      logits, _ = kv_cache.prefill(model, batch['inputs'][:, :9], np.full(4, 9, np.int32), 16)
    made[kernel] = jax.device_get((loss, gradient, logits))
  jax.tree.map(lambda ours, plain: np.testing.assert_allclose(ours, plain, atol=3e-6, rtol=1e-4),
               made['splash'], made['xla'])


@pytest.mark.parametrize('heads, kv_heads, b', [(2, 2, 3), (4, 2, 3), (2, 2, 1)])
@pytest.mark.parametrize('cache_dtype, error', [('bfloat16', 0.03), ('float32', 0.01)])
def test_a_cache_is_multiplied_in_its_dtype(heads, kv_heads, b, cache_dtype, error):
  q, k = (jax.random.normal(jax.random.key(n), (b, *shape)).astype('bfloat16')
          for n, shape in enumerate([(1, heads, 16), (kv_heads, 64, 16)]))
  mask = jnp.arange(64) < jnp.array([[9], [64], [30]])[:b]
  with mesh_of():
    program = jax.jit(cached_attention).lower(q, k.astype(cache_dtype), k.astype(cache_dtype), mask)
    got = program.compile()(q, k.astype(cache_dtype), k.astype(cache_dtype), mask)
    exact = jax.jit(cached_attention)(*(x.astype('float32') for x in (q, k, k)), mask)
  kind = {'bfloat16': 'bf16', 'float32': 'f32'}[cache_dtype]
  operands = re.findall(r'dot_general.*: \(tensor<\w*x(\w+)>, tensor<\w*x(\w+)>\)', program.as_text())
  assert operands == [(kind, kind)] * 2 and got.dtype == q.dtype
  np.testing.assert_allclose(np.float32(got), exact, atol=error)
