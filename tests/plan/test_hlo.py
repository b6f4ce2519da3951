"""Costs from the text of a compiled program: FLOPs, communication and trip counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of

from gptjax.plan import hlo


def text(function, *arguments):
  return jax.jit(function).lower(*arguments).compile().as_text()


def test_matmuls_in_loops_count_once_per_iteration():
  w, x = jnp.ones((5, 16, 16)), jnp.ones((8, 16))
  layers = lambda x: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
  inner = 5 * 2 * 8 * 16 * 16
  assert hlo.flops(text(layers, x)) == inner
  thrice = lambda x: jax.lax.scan(lambda x, _: (layers(x), None), x, length=3)[0]
  assert hlo.flops(text(thrice, x)) == 3 * inner


def test_a_batch_of_matmuls_counts_each():
  a, b = jnp.ones((3, 4, 8, 16)), jnp.ones((3, 4, 16, 2))
  assert hlo.flops(text(jnp.matmul, a, b)) == 2 * 3 * 4 * 8 * 16 * 2


# As a TPU's compiler writes it: a batch of 4 x 4 products as a convolution in which each meets its own.
CONVOLUTION = """
ENTRY %main (q: bf16[4,4,64,64], k: bf16[4,4,256,64]) -> f32[4,4,64,256] {
  %q = bf16[4,4,64,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[4,4,256,64]{2,3,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %s = f32[4,4,64,256]{3,2,1,0:T(8,128)} convolution(%q, %k), WINDOW, dim_labels=01bf_01oi->01bf
}
"""


@pytest.mark.parametrize('window', ['window={size=4x4 stride=3x3 lhs_dilate=4x4}',
                                    'window={size=4x4 pad=3_3x3_3 rhs_reversal=1x1}'])
def test_convolutions_do_not_count_padding(window):
  found = hlo.flops(CONVOLUTION.replace('WINDOW', window))
  if 'dilate' in window:
    assert found == 2 * 4 * 4 * 64 * 256 * 64
  else:  # each of 4 x 4 places meets those of 4 x 4 that lie inside: 1 + 2 + 3 + 4 ... of them
    assert found == 2 * 64 * 256 * 64 * sum(min(o + 1, 4) for o in range(4)) ** 2


LOOP = """
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %x = f32[8]{0:T(128)} get-tuple-element(%p), index=1
  %sum = f32[8]{0:T(128)} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%i, %sum)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

ENTRY %main (x: f32[8]) -> (s32[], f32[8]) {
  %x = f32[8]{0:T(128)} parameter(0)
  %start = s32[]{:T(128)} constant(2)
  %copied = s32[]{:T(128)} copy(%start)
  %init = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%copied, %x)
  ROOT %loop = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%init), condition=%condition, body=%body
}
"""


def test_a_loop_runs_from_its_start_to_its_limit():
  one, = hlo.collectives(LOOP)
  assert (one.kind, one.sizes, one.runs, one.depth) == ('all-reduce', [32], 10, 1)
  assert hlo.output_bytes(one) == 320 and hlo.sent_bytes(one) == 320 * 2 * 3 / 4


def test_a_loop_of_unknown_length_raises_an_error():
  with pytest.raises(ValueError, match=r'trip count of the loop loop.* is unknown'):
    hlo.collectives(LOOP.replace('direction=LT', 'direction=NE'))


@pytest.mark.parametrize('written, groups', [
  ('{{0,1},{2,3}}', [[0, 1], [2, 3]]), ('[2,2]<=[4]', [[0, 1], [2, 3]]),
  ('[2,2]<=[2,2]T(1,0)', [[0, 2], [1, 3]]), ("mesh['x'=2,'y'=2] {'x'}", [[0, 2], [1, 3]]),
  ("mesh['x'=2,'y'=2] {'x','y'}", [[0, 1, 2, 3]])])
def test_groups_are_read_in_each_notation(written, groups):
  one, = hlo.collectives(LOOP.replace('[2,4]<=[8]', written))
  assert one.groups.tolist() == groups


def test_a_reduce_scatter_sends_half_of_an_all_reduce():
  with mesh_of(fsdp=4) as mesh:
    place = jax.NamedSharding(mesh, jax.P('fsdp'))
    x = jax.device_put(np.ones((4, 64), np.float32), place)
    scatter = jax.shard_map(lambda x: jax.lax.psum_scatter(x[0], 'fsdp', tiled=True), out_specs=jax.P('fsdp'))
    everywhere = jax.shard_map(lambda x: jax.lax.psum(x[0], 'fsdp'), out_specs=jax.P())
    (one,), (two,) = hlo.collectives(text(scatter, x)), hlo.collectives(text(everywhere, x))
  assert hlo.full_bytes(one) == hlo.full_bytes(two) == 4 * 64
  assert 2 * hlo.sent_bytes(one) == hlo.sent_bytes(two)


# As the compilers write them: two sequences, three heads of 64, 1,024 positions.
ATTENTION = """
ENTRY %main (q: bf16[2,3,1024,64]) -> bf16[2,3,1024,64] {
  %q = bf16[2,3,1024,64]{3,2,1,0} parameter(0)
  %do = bf16[2,3,1024,64]{3,2,1,0} parameter(1)
  %lse = f32[2,3,1024]{2,1,0} parameter(2)
  %rows = f32[2,3,8,1024]{3,2,1,0} parameter(3)
  %table = s8[1,2,2]{2,1,0} parameter(4)
  %x = bf16[2,1024,3,64]{3,2,1,0} parameter(5)
  %q_of_one = bf16[3,1024,64]{2,1,0} parameter(6)
  %k = bf16[2,1,1024,64]{3,2,1,0} parameter(7)
  %grouped = bf16[2,1024,1,64]{3,2,1,0} parameter(8)
  KERNEL
}
"""
CUDNN = ('(bf16[2,3,1024,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), '
         'custom_call_target="__cudnn$fmhaSoftmax", '
         'backend_config={"intermediate_tensor_shape": {"dimensions": ["2", "3", "1024", "1024"]}, '
         '"sliding_window_length": 0}')
SPLASH = ('(f32[2,512,64]{2,1,0}, bf16[2,3,1024,64]{3,2,1,0}) custom-call(%table, %table, OPERANDS), '
          'custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={\n'
          '"xprof_metadata":"{BLOCKS}"')
SIZES = r'\"block_q\": 512, \"block_kv\": 256'
FORWARD = SPLASH.replace('OPERANDS', '%q, %q, %q').replace('BLOCKS', SIZES)
KEYS = SPLASH.replace('OPERANDS', '%q, %q, %q, %rows, %do, %rows').replace(
  'BLOCKS', r'\"block_q_dkv\": 512, \"block_kv_dkv\": 512')
OURS = ('bf16[2,1024,3,64]{3,2,1,0} custom-call(%x, %x, %lse, %lse, %x, %x), '
        'custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/flash_dq/pallas_call"}')
OURS_DKV = OURS.replace('%x, %x, %lse, %lse, %x, %x', '%grouped, %grouped, %x, %x, %lse, %lse').replace(
  'flash_dq', 'flash_dkv')
ARRAY, ROWS = 2 * 2 * 3 * 1024 * 64, 4 * 2 * 3 * 8 * 1024  # bytes
WINDOW = 100
PAIRS = sum(min(i + 1, WINDOW) for i in range(1024)) / 1024  # keys per query


def within_window(kernel):
  """A kernel as it is called with a window of 100."""
  kernel = kernel.replace('length": 0', f'length": {WINDOW}')
  kernel = kernel.replace('(step)', f'(step)/jvp(window_{WINDOW})')
  return kernel.replace('BLOCKS}"', f'BLOCKS}}"}}}}, metadata={{op_name="jvp(window_{WINDOW})/shard_map"}}')


@pytest.mark.parametrize('written, flops, again', [
  ('%a = ' + CUDNN, 2 * 1024 / 2, 0),
  ('%a = ' + CUDNN.replace('Softmax', 'SoftmaxBackward'), 5 * 1024 / 2, 0),
  ('%a = ' + OURS, 3 * 1024 / 2, 0),
  # Of queries 0 to 511 keys up to 511, of the others all; in blocks of 256 keys that is 2 + 4 pairs.
  ('%splash_mha_fwd_residuals.1 = ' + FORWARD, 2 * 6 * 512 * 256 / 1024, 2 * ARRAY * (6 / 4 - 1)),
  ('%splash_mha_dkv_no_residuals.1 = ' + KEYS, 4 * 3 * 512 * 512 / 1024,
   (2 * ARRAY + 2 * ROWS) * (3 / 2 - 1)),
  # One sequence on a device: its dimension is not there.
  ('%splash_mha_fwd_residuals.1 = ' + FORWARD.replace('%q', '%q_of_one'), 6 * 512 * 256 / 1024,
   ARRAY * (6 / 4 - 1)),
  ('%a = ' + within_window(CUDNN), 2 * PAIRS, 0),
  ('%a = ' + within_window(OURS), 3 * PAIRS, 0),
  # Three query heads of one group: their work, and for each of them the keys are read.
  ('%a = ' + OURS_DKV, 4 * 1024 / 2, 0),
  ('%splash_mha_fwd_residuals.1 = ' + FORWARD.replace('%q, %q, %q', '%q, %k, %k'), 2 * 6 * 512 * 256 / 1024,
   2 * ARRAY / 3 * (3 * 6 / 4 - 1)),
  # Of queries 512 to 1,023 only keys from 413 on: 2 + 3 pairs.
  ('%splash_mha_fwd_residuals.1 = ' + within_window(SPLASH).replace('OPERANDS', '%q, %q, %q').replace(
    'BLOCKS', SIZES), 2 * 5 * 512 * 256 / 1024, 2 * ARRAY * (5 / 4 - 1))])
def test_attention_kernels_count_what_they_attend_to_and_the_blocks_at_its_borders(written, flops, again):
  text = ATTENTION.replace('KERNEL', written)
  assert hlo.flops(text) == pytest.approx(2 * 2 * 3 * 64 * 1024 * flops, rel=2e-3)
  found = [hlo.splash_cost(instruction, at.types)[1] for instruction, at in hlo.instructions(text)]
  assert sum(found) == again
