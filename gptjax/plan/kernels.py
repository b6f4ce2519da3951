"""One layer's attention, compiled with each kernel and block size that a device has: what they take.

    python -m gptjax.plan --config=configs/gpt2_small.py --topology=v5e:2x4 --kernels
"""

import functools
import itertools

import jax

from gptjax.kernels.fused import LANES, splash
from gptjax.model.attention import attention
from gptjax.parallel import sharding
from gptjax.plan import traffic

BLOCK_SIZES = (128, 256, 512, 1024)


def candidates(platform, t):
  """{name: function of q, k, v} of all that could compute attention over t positions there."""
  plain = functools.partial(attention, rate=0.0, keys=None)
  found = {'xla': functools.partial(plain, kernel='xla')}
  if platform != 'tpu':
    return found | {name: functools.partial(plain, kernel=name) for name in ('cudnn', 'pallas')}
  from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, QKVLayout
  padded = t + -t % LANES
  backward = {'': {}, ', one backward kernel': {'use_fused_bwd_kernel': True}}
  layouts = {'': {}, ', heads as rows': dict.fromkeys(('q_layout', 'k_layout', 'v_layout'),
                                                      QKVLayout.SEQ_MINOR)}
  for size, way, layout in itertools.product(BLOCK_SIZES, backward, layouts):
    if padded % size == 0:
      blocks = BlockSizes(*[size] * (6 if way else 8), **backward[way], **layouts[layout])
      found[f'splash {size}{way}{layout}'] = functools.partial(splash, blocks=blocks)
  return found


def estimate_kernels(config, mesh, device):
  """[{'kernel', 'peak' and 'moved' bytes, 'flops', 'seconds' at the ceilings}] of each.

  Forward and backward of one layer, on one device's share of a microbatch. A kernel that the compiler refuses
  has 'refused', a line, in place of figures.

  Args:
    config: resolved.
    mesh: of described devices.
    device: `hardware.Device`.
  """
  c, found = config.model, []
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    place = sharding.compute_spec('batch', None, sharding.head_axis(c.n_head), None)
  shape = config.train.microbatch_size, config.data.seq_len, c.n_head, c.n_embd // c.n_head
  x = jax.ShapeDtypeStruct(shape, c.compute_dtype, sharding=jax.NamedSharding(mesh, place))
  platform = mesh.devices.flat[0].platform
  for name, attend in candidates(platform, config.data.seq_len).items():
    def both(q, k, v, dy, attend=attend):
      y, pull = jax.vjp(attend, q, k, v)
      return y, *pull(dy)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      lowered = jax.jit(both).trace(x, x, x, x).lower(lowering_platforms=(platform.replace('gpu', 'cuda'),))
    try:
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      found.append({'kernel': name, 'refused': str(error).splitlines()[0][:90]})
      continue
    kernels = traffic.kernels(compiled.as_text())
    found.append({
      'kernel': name, 'peak': compiled.memory_analysis().peak_memory_in_bytes,
      'moved': sum(one.runs * one.bytes for one in kernels),
      'flops': sum(one.runs * one.flops for one in kernels),
      'seconds': sum(one.runs * max(one.flops / device.flops, one.bytes / device.bandwidth)
                     for one in kernels)})
  return found


def table(found, config, mesh, name):
  """What `measure` found, as text."""
  rows = config.train.microbatch_size // sharding.batch_shards(mesh)
  lines = [f'attention of one layer, forward and backward, on one device of {name}: {rows} sequences of '
           f'{config.data.seq_len:,}, {config.model.n_head} heads of '
           f'{config.model.n_embd // config.model.n_head}', '',
           f'{"peak MiB":>9} {"moved MB":>9} {"GFLOP":>8} {"ms at best":>11}  kernel']
  for one in found:
    figures = 'refused by the compiler' if 'refused' in one else (
      f'{one["peak"] / 2**20:>9.1f} {one["moved"] / 1e6:>9.1f} {one["flops"] / 1e9:>8.2f} '
      f'{one["seconds"] * 1e3:>11.3f}')
    lines.append(f'{figures:>40}  {one["kernel"]}' + (f': {one["refused"]}' if 'refused' in one else ''))
  return '\n'.join(lines)
