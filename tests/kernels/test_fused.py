"""Kernels of libraries with grouped heads, a window and segments, beside the equation with repeated heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of
from kernels import plain

from gptjax.kernels import fused
from gptjax.parallel import sharding
from gptjax.plan import hlo

splash = functools.partial(fused.splash, interpret=True)


def check_splash(t, group, window, segmented, **sizes):
  options = dict(window=window, segments=plain.segments(t) if segmented else None)
  with mesh_of():
    plain.check(functools.partial(splash, **options), *plain.inputs(t, group, **sizes), **options)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('group, window, segmented', plain.CASES)
def test_splash_equals_the_equation(group, window, segmented):
  """200 positions are padded to 256."""
  check_splash(200, group, window, segmented)


@pytest.mark.slow
@pytest.mark.parametrize('t', [1, 128, 300])
@pytest.mark.parametrize('group, window, segmented', plain.ALL_CASES)
def test_splash_equals_the_equation_in_all_cases(group, window, segmented, t):
  check_splash(t, group, window, segmented)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('k, t', [(64, 640), (128, 256)])
def test_splash_is_right_with_each_way_to_cut_it_up(k, t):
  """Heads as rows and as columns; the backward pass in one kernel and in two, which skip blocks."""
  check_splash(t, 2, 150, True, h=2, k=k)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('h, j', [(4, 2), (3, 1)], ids=['heads divided', 'heads whole'])
def test_splash_on_a_mesh_is_the_same_and_sends_nothing(h, j):
  t = 200
  segments = plain.segments(t, 4)
  def run(segments, *x):
    return plain.with_gradients(functools.partial(splash, window=70, segments=segments), *x)
  x = plain.inputs(t, h // j, b=4, h=h)
  with mesh_of():
    want = jax.device_get(run(segments, *x))
  with mesh_of(data=2, fsdp=2, tensor=2):
    place = sharding.compute_spec('batch', None, sharding.head_axis(j), None)
    arguments = jax.reshard(segments, sharding.compute_spec('batch', None)), *jax.reshard(x, place)
    program = jax.jit(run).lower(*arguments).compile()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), program(*arguments), want)
    assert not hlo.collectives(program.as_text())


def test_splash_reads_keys_and_values_as_they_are():
  t, segments = 128, plain.segments(128)
  x = plain.inputs(t, 4)
  with mesh_of():
    kernels = plain.kernel_inputs(functools.partial(splash, window=50, segments=segments), *x)
  assert len(kernels) >= 2
  for shapes in kernels:  # the forward pass is in the trace twice
    sizes = [np.prod(shape) for shape in shapes]
    assert sizes.count(x[1].size) == 2  # k and v
    assert sizes.count(x[0].size) in (1, 2)  # q, and the gradient of y


@pytest.fixture
def cudnn_by_xla(monkeypatch):
  """What is asked of cuDNN, as XLA computes it."""
  function = jax.nn.dot_product_attention
  def attend(*args, implementation, **options):
    assert implementation == 'cudnn'
    return function(*args, implementation='xla', **options)
  monkeypatch.setattr(jax.nn, 'dot_product_attention', attend)


@pytest.mark.parametrize('group, window', [(1, 0), (1, 7), (2, 0), (2, 1), (4, 40), (4, 500)])
def test_cudnn_is_asked_for_the_equation(cudnn_by_xla, group, window):
  with mesh_of():
    plain.check(functools.partial(fused.cudnn, window=window), *plain.inputs(70, group), window=window)


def test_kernels_want_keys_on_the_devices_of_their_queries():
  q, k, v = plain.inputs(16, 2)
  with mesh_of(tensor=2):
    q = jax.reshard(q, jax.P(None, None, 'tensor'))
    for attend in (fused.cudnn, splash):
      with pytest.raises(AssertionError):
        jax.eval_shape(attend, q, jnp.asarray(k), v)
