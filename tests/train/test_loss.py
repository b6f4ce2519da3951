"""The chunked loss against the plain one: value, gradients, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.model.layers import lookup
from gptjax.parallel import sharding
from gptjax.train.loss import next_token_loss
from gptjax.train.step import graph, init_state, train_step


def plain(x, wte, targets, n_vocab, cap=0):
  logits = jnp.einsum('btd,vd->btv', x, wte)[..., :n_vocab]
  logits = cap * jnp.tanh(logits / cap) if cap else logits
  nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(targets, 0)[..., None], -1)
  return jnp.where(targets >= 0, nll[..., 0], 0).sum()


@pytest.mark.ci
@settings(max_examples=10, deadline=None)  # each shape is compiled anew
@given(b=st.integers(1, 4), t=st.integers(1, 40), chunk=st.integers(0, 50), pad=st.integers(0, 9),
       scale=st.sampled_from([0.1, 1.0, 30.0]), cap=st.sampled_from([0.0, 2.0, 15.0]),
       seed=st.integers(0, 99))
def test_value_and_gradients_equal_the_plain_loss(b, t, chunk, pad, scale, cap, seed):
  n_vocab, d = 37, 16
  keys = jax.random.split(jax.random.key(seed), 3)
  x = scale * jax.random.normal(keys[0], (b, t, d))
  wte = jax.random.normal(keys[1], (n_vocab + pad, d)).at[n_vocab:].set(0)
  targets = jax.random.randint(keys[2], (b, t), -4, n_vocab)
  want = lambda x, wte: plain(x, wte, targets, n_vocab, cap) / 3
  want_value, want_grads = jax.jit(jax.value_and_grad(want, (0, 1)))(x, wte)
  with mesh_of():
    x, counted = jax.reshard((x, targets), sharding.compute_spec('batch'))
    wte = jax.reshard(wte, sharding.compute_spec('vocab', None))
    ours = lambda x, wte: next_token_loss(x, wte, counted, n_vocab, chunk, soft_cap=cap)[0] / 3
    value, grads = jax.jit(jax.value_and_grad(ours, (0, 1)))(x, wte)
    forward = jax.jit(next_token_loss, static_argnums=(3, 4, 6))
    only_value, count = forward(x, wte, counted, n_vocab, chunk, None, cap)
  np.testing.assert_allclose(value, want_value, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(only_value / 3, want_value, rtol=1e-5, atol=1e-5)
  for got, true in zip(grads, want_grads):
    np.testing.assert_allclose(got, true, atol=1e-5 * max(1, float(np.abs(true).max())))
  assert not np.asarray(grads[1])[n_vocab:].any(), 'padded rows must get no gradient'
  assert count == (np.asarray(targets) >= 0).sum()


def test_no_target_counted_gives_zero_and_no_gradient():
  x, wte = jnp.ones((2, 5, 4)), jnp.ones((8, 4))
  with mesh_of():
    x, targets = jax.reshard((x, jnp.full((2, 5), -1)), sharding.compute_spec('batch'))
    wte = jax.reshard(wte, sharding.compute_spec('vocab', None))
    f = lambda x, w: next_token_loss(x, w, targets, 8, 2)[0]
    value, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(x, wte)
  assert value == 0 and not any(np.asarray(g).any() for g in grads)


def test_gradients_in_bfloat16_stay_close():
  keys = jax.random.split(jax.random.key(0), 3)
  x, wte = jax.random.normal(keys[0], (4, 32, 64)), jax.random.normal(keys[1], (128, 64)) * 0.1
  targets = jax.random.randint(keys[2], (4, 32), 0, 128)
  true = jax.grad(lambda x, w: plain(x, w, targets, 128), (0, 1))(x, wte)
  with mesh_of():
    x, targets = jax.reshard((x, targets), sharding.compute_spec('batch'))
    low = jax.grad(lambda x, w: next_token_loss(x, w, targets, 128, 8)[0], (0, 1))(
      x.astype(jnp.bfloat16), wte.astype(jnp.bfloat16))
  for got, want in zip(low, true):
    error = np.linalg.norm(np.asarray(got, np.float32) - want) / np.linalg.norm(want)
    assert error < 0.02


def test_the_gradient_of_a_frequent_token_does_not_stop_growing_in_bfloat16():
  with mesh_of():
    ids = jax.reshard(jnp.zeros((4, 1024), jnp.int32), sharding.compute_spec('batch'))
    table = jax.reshard(jnp.zeros((8, 2), jnp.bfloat16), sharding.compute_spec('vocab', None))
    gradient = jax.grad(lambda table: lookup(table, ids, ('batch', None)).astype(jnp.float32).sum())(table)
  assert gradient[0].tolist() == [4096, 4096] and not np.asarray(gradient[1:]).any()


def peak_bytes(config):
  batch = random_batch(config)
  with mesh_of() as mesh:
    state = jax.eval_shape(functools.partial(init_state, config))
    step = functools.partial(train_step, config=config, graphdef=graph(config), steps=10)
    compiled = jax.jit(step, donate_argnums=0).lower(state, sharding.shard_batch(batch, mesh)).compile()
  return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.ci
@pytest.mark.parametrize('dtype', ['float32'])
def test_the_logits_of_a_batch_are_never_alive(dtype):
  shape = {'model.n_vocab': 32768, 'model.n_ctx': 128, 'model.compute_dtype': dtype}
  whole = peak_bytes(tiny_config(**shape, **{'loss.chunk': 0}))
  chunked = peak_bytes(tiny_config(**shape, **{'loss.chunk': 8}))
  logits = 8 * 128 * 32768 * 4
  assert whole > logits, 'the plain loss holds at least one array of batch x seq x vocab'
  assert chunked < logits / 2, (chunked, logits)
