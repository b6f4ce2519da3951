"""Cost of one layer's attention, compiled with each kernel and block size that a device supports.

    python -m gptjax.plan --config=configs/gpt2_small.py --topology=v5e:2x4 --kernels
"""

import functools
import itertools

import jax

from gptjax.kernels.fused import LANES, splash
from gptjax.model import parameters
from gptjax.model.attention import attention
from gptjax.parallel import sharding
from gptjax.plan import traffic

BLOCK_SIZES = (128, 256, 512, 1024)


def candidates(platform, t, window, packing):
  """Return {name: function of q, k, v and `segments`} of all kernels for t positions on a platform."""
  plain = functools.partial(attention, rate=0.0, keys=None, window=window)
  kernels = {'xla': functools.partial(plain, kernel='xla')}
  if platform != 'tpu':
    names = ('pallas',) if packing else ('cudnn', 'pallas')
    return kernels | {name: functools.partial(plain, kernel=name) for name in names}
  from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, QKVLayout
  padded = t + -t % LANES
  backward = {'': {}, ', one backward kernel': {'use_fused_bwd_kernel': True}}
  layouts = {'': {}, ', heads as rows': dict.fromkeys(('q_layout', 'k_layout', 'v_layout'),
                                                      QKVLayout.SEQ_MINOR)}
  for size, way, layout in itertools.product(BLOCK_SIZES, backward, layouts):
    if padded % size == 0:
      blocks = BlockSizes(*[size] * (6 if way else 8), **backward[way], **layouts[layout])
      kernels[f'splash {size}{way}{layout}'] = functools.partial(splash, window=window, blocks=blocks)
  return kernels


def estimate_kernels(config, mesh, device):
  """Return [{'kernel', 'peak' and 'moved' bytes, 'flops', 'seconds' (roofline lower bound)}] of each kernel.

  The costs are of forward and backward of one layer, on one device's share of a microbatch. A kernel that the
  compiler rejects has 'refused', a line, instead of costs.

  Args:
    config: resolved.
    mesh: of devices from `topology.describe`.
    device: `hardware.Device`.
  """
  c, costs = config.model, []
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    spec = sharding.compute_spec('batch', None, sharding.head_axis(parameters.n_kv_head(c)), None)
  b, t, size = config.train.microbatch_size, config.data.seq_len, parameters.head_size(c)
  place = functools.partial(jax.NamedSharding, mesh)
  q, k = (jax.ShapeDtypeStruct((b, t, n, size), c.compute_dtype, sharding=place(spec))
          for n in (c.n_head, parameters.n_kv_head(c)))
  segments = None
  if config.data.packing:
    segments = jax.ShapeDtypeStruct((b, t), 'int32', sharding=place(jax.P(spec[0])))
  platform = mesh.devices.flat[0].platform
  for name, attend in candidates(platform, t, c.sliding_window, config.data.packing).items():
    def forward_and_backward(q, k, v, dy, segments, attend=attend):
      y, pull = jax.vjp(functools.partial(attend, segments=segments), q, k, v)
      return y, *pull(dy)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      traced = jax.jit(forward_and_backward).trace(q, k, k, q, segments)
      lowered = traced.lower(lowering_platforms=(platform.replace('gpu', 'cuda'),))
    try:
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      costs.append({'kernel': name, 'refused': str(error).splitlines()[0][:90]})
      continue
    kernels = traffic.kernels(compiled.as_text())
    costs.append({
      'kernel': name, 'peak': compiled.memory_analysis().peak_memory_in_bytes,
      'moved': sum(kernel.runs * kernel.bytes for kernel in kernels),
      'flops': sum(kernel.runs * kernel.flops for kernel in kernels),
      'seconds': sum(kernel.runs * max(kernel.flops / device.flops, kernel.bytes / device.bandwidth)
                     for kernel in kernels)})
  return costs


def table(costs, config, mesh, name):
  """Format the result of `estimate_kernels`."""
  rows = config.train.microbatch_size // sharding.batch_shards(mesh)
  lines = [f'attention of one layer, forward and backward, on one device of {name}: {rows} sequences of '
           f'{config.data.seq_len:,}, {config.model.n_head} heads of {parameters.head_size(config.model)}'
           + (f', {config.model.n_kv_head} of keys and values' if config.model.n_kv_head else '')
           + (f', window {config.model.sliding_window:,}' if config.model.sliding_window else ''), '',
           f'{"peak MiB":>9} {"moved MB":>9} {"GFLOP":>8} {"ms bound":>11}  kernel']
  for row in costs:
    figures = 'rejected by the compiler' if 'refused' in row else (
      f'{row["peak"] / 2**20:>9.1f} {row["moved"] / 1e6:>9.1f} {row["flops"] / 1e9:>8.2f} '
      f'{row["seconds"] * 1e3:>11.3f}')
    lines.append(f'{figures:>40}  {row["kernel"]}' + (f': {row["refused"]}' if 'refused' in row else ''))
  return '\n'.join(lines)
