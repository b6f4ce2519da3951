"""Fused attention from libraries: cuDNN on NVIDIA GPUs, splash on TPUs; and the choice of a kernel.

Neither has dropout; flash.py does, on NVIDIA GPUs. All three compute the softmax online, a block of keys at a
time: the scores are never materialized, and blocks of later keys are skipped.

Letters: b batch, t time, h heads, j heads of keys and values, g = h / j, k head size. Query heads i g to
i g + g - 1 attend to the keys and values of head i, which no kernel repeats.

XLA cannot partition a kernel, so each runs inside `jax.shard_map` on the sequences and heads of a device's
shard.
"""

import functools

import jax
import jax.numpy as jnp

LANES = 128  # width of a TPU register; splash wants sequences that are multiples of it
CUDNN_HEAD_SIZE = 128  # largest that every GPU since Ampere supports
PALLAS_HEAD_SIZES = (16, 32, 64, 128)  # Triton's blocks are powers of two, its matmuls at least 16 wide
BLOCK = 512  # queries and keys per block in splash; docs/explanation/speed_log.md compares others


def unsupported_reason(kernel, config, device):
  """Return why a kernel does not support this config on this device, and what to do; '' if it does.

  Args:
    kernel: 'cudnn', 'splash' or 'pallas'.
    config: with `model.compute_dtype` resolved.
    device: a JAX device or a description of one.
  """
  c = config.model
  size = c.head_size or c.n_embd // max(c.n_head, 1)  # n_head = 0 is refused later
  platform = {'cudnn': 'gpu', 'splash': 'tpu', 'pallas': 'gpu'}[kernel]
  if device.platform != platform:
    return f'runs on a {platform.upper()}, and this is a {device.platform.upper()}: set it to xla or auto'
  if kernel != 'pallas' and c.dropout and config.job != 'evaluate':
    return (f'has no dropout of attention weights, and config.model.dropout = {c.dropout}: set that to 0, or '
            'the kernel to xla' + ' or pallas' * (kernel == 'cudnn'))
  if kernel == 'cudnn' and config.data.packing and config.job == 'pretrain':
    return ('does not keep the documents of a sequence apart, and config.data.packing = True: set that to '
            'False, or the kernel to xla or pallas')
  if kernel == 'cudnn' and c.compute_dtype != 'bfloat16':
    return f'computes in bfloat16, and config.model.compute_dtype = {c.compute_dtype}: change one of them'
  if kernel == 'cudnn' and (size % 8 or size > CUDNN_HEAD_SIZE):
    return (f'supports head sizes that are multiples of 8 up to {CUDNN_HEAD_SIZE}, and '
            f'config.model.head_size (0: n_embd / n_head) is {size}: set it to xla')
  if kernel == 'pallas' and size not in PALLAS_HEAD_SIZES:
    return (f'supports the head sizes {", ".join(map(str, PALLAS_HEAD_SIZES))}, and config.model.head_size '
            f'(0: n_embd / n_head) is {size}: set it to xla')
  if kernel in ('cudnn', 'pallas') and not _is_ampere_or_later(device):
    return f'needs an NVIDIA GPU of Ampere or later, and this is a {device.device_kind}: set it to xla'
  if kernel == 'splash' and device.device_kind in ('TPU v2', 'TPU v3'):
    return f'needs a TPU v4 or later, and this is a {device.device_kind}: set it to xla'
  return ''


def _is_ampere_or_later(device):
  major = device.compute_capability.partition('.')[0]  # AMD GPUs have a name here
  return major.isdigit() and int(major) >= 8


def best(config, device):
  """Return the kernel that `config.attention.kernel = auto` selects on this device."""
  if not unsupported_reason('cudnn', config, device):
    return 'cudnn'
  # Padding to LANES is fine for one prompt, too expensive for training.
  if config.data.seq_len % LANES == 0 and not unsupported_reason('splash', config, device):
    return 'splash'
  return 'xla'  # also with dropout on a GPU: `pallas` is tested in interpreter mode, but has never run on one


def cudnn(q, k, v, window=0):
  """softmax(q k^T / sqrt(head size)) v with a causal mask, in bfloat16.

  Args:
    q: [b, t, h, k].
    k, v: [b, t, j, k]; j divides h, and their heads are sharded as those of q are.
    window: number of positions that one attends to, itself and those before it; 0: all.

  Returns:
    [b, t, h, k].
  """
  spec = _common_spec(q, k)
  band = (window - 1, 0) if 0 < window < q.shape[1] else None  # positions to the left and right of a query
  attend = functools.partial(jax.nn.dot_product_attention, is_causal=True, local_window_size=band,
                             implementation='cudnn')
  return jax.shard_map(attend, out_specs=spec)(q, k, v)


def splash(q, k, v, window=0, segments=None, blocks=None, interpret=False):
  """softmax(q k^T / sqrt(head size)) v with a causal mask.

  Blocks of keys before the window are skipped. Those of other segments are computed and masked: which they
  are is not known to the compiler.

  Args:
    q: [b, t, h, k], any t; padded at the end to a multiple of LANES, which the causal mask hides.
    k, v: [b, t, j, k]; j divides h, and their heads are sharded as those of q are.
    window: number of positions that one attends to, itself and those before it; 0: all.
    segments: int32[b, t]; a position attends to its own segment only. None: one segment.
    blocks: splash's own BlockSizes; None: `block_sizes`.
    interpret: run in Pallas's interpreter, for tests without a TPU.

  Returns:
    [b, t, h, k].
  """
  t, spec = q.shape[1], _common_spec(q, k)
  padding = (0, 0), (0, -t % LANES), (0, 0), (0, 0)
  # The kernel does not scale.
  q, k, v = (jnp.pad(x, padding) for x in (q * q.shape[-1] ** -0.5, k, v))
  if segments is not None:
    segments = jnp.pad(segments, padding[:2])
  blocks = blocks or block_sizes(q.shape[1], q.shape[3])
  window = window if window < t else 0
  attend = functools.partial(_splash, blocks, interpret, window)
  with jax.named_scope(f'window_{window}'):  # for `gptjax.plan.hlo`, which counts what is skipped
    return _on_shards(attend, spec, q.shape[2] // k.shape[2])(q, k, v, segments)[:, :t]


def _common_spec(q, k):
  """The PartitionSpec of queries and keys: each device has the keys of its queries, and no others."""
  spec, of_keys = (jax.typeof(x).sharding.spec for x in (q, k))
  assert spec == of_keys, (spec, of_keys)
  return spec


def block_sizes(t, k):
  """Splash's BlockSizes for t, a multiple of LANES, and head size k.

  docs/explanation/speed_log.md has the reasons.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, QKVLayout
  size = max(size for size in range(LANES, min(t, BLOCK) + 1, LANES) if t % size == 0)
  # The fused backward kernel computes scores once, but writes dq for each block of keys.
  fuse_backward = t <= 2 * size
  # Memory tiles are 128 wide: with the head size minor, part of each would be padding.
  layout = QKVLayout.SEQ_MINOR if k < LANES else QKVLayout.HEAD_DIM_MINOR
  return BlockSizes(*[size] * (6 if fuse_backward else 8), use_fused_bwd_kernel=fuse_backward,
                    q_layout=layout, k_layout=layout, v_layout=layout)


def _splash(blocks, interpret, window, q, k, v, segments):
  """The kernel on one device's shard."""
  from jax.experimental.pallas.ops.tpu import splash_attention as library
  _, t, h, _ = q.shape
  mask = library.LocalMask((t, t), (window - 1, 0), 0) if window else library.CausalMask((t, t))
  # It takes grouped heads as they are: each query head reads the block of its group's keys.
  attend = library.make_splash_mha(library.MultiHeadMask([mask] * h), block_sizes=blocks, head_shards=1,
                                   q_seq_shards=1, interpret=interpret)
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  segments = None if segments is None else library.SegmentIds(segments, segments)
  return jnp.swapaxes(jax.vmap(attend)(q, k, v, segments), 1, 2)


def _on_shards(attend, spec, group):
  """shard_map of attend(q, k, v, segments), [b, t, heads, k] sharded as `spec` says; it communicates nothing.

  Differentiating the shard_map itself would all-reduce the gradients of devices that hold the same heads: JAX
  cannot see inside a Pallas kernel that they are equal already. So the backward pass has a shard_map of its
  own.

  Args:
    attend: the kernel on one device's shard.
    spec: of q, k, v and the result.
    group: number of query heads per head of keys and values.
  """
  mapped = functools.partial(jax.shard_map, check_vma=False)
  # Other residuals are the segments and tables of block indices.
  is_activation = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
  # The gradient is of q, k and v alone: segments are integers.
  vjp = lambda segments, *qkv: jax.vjp(lambda *qkv: attend(*qkv, segments), *qkv)

  @jax.custom_vjp
  def on_shards(q, k, v, segments):
    return mapped(attend, out_specs=spec)(q, k, v, segments)

  def forward(q, k, v, segments):
    def keep(segments, *qkv):
      y, pull = vjp(segments, *qkv)
      return y, [x for x in jax.tree.leaves(pull) if is_activation(x)]  # [b, heads, ...] each
    y, residuals = mapped(keep, out_specs=(spec, jax.P(spec[0], spec[2])))(segments, q, k, v)
    return y, (residuals, segments)

  def backward(saved, dy):
    def pull(residuals, segments, dy):
      like_k = dy[:, :, ::group]
      # Only its tables and segments are used: XLA removes the rest as dead code.
      template = vjp(segments, dy, like_k, like_k)[1]
      residuals = iter(residuals)
      return jax.tree.map(lambda x: next(residuals) if is_activation(x) else x, template)(dy)
    return *mapped(pull, out_specs=spec)(*saved, dy), None

  on_shards.defvjp(forward, backward)
  return on_shards
