"""Attention in one kernel, written by others: cuDNN's on NVIDIA GPUs, splash on TPUs. Neither drops weights.
Our own that does, on NVIDIA GPUs, is in flash.py; which of all is for a device and a config is said here.

No array of scores exists with them: they take the softmax while they sum, a block of keys at a time, and
never touch what lies in the future of a block. Letters: b batch, t time, h heads, k head size.

XLA cannot cut a kernel over devices, so each runs inside `jax.shard_map` on the sequences and heads that a
device has; its inputs say which those are.
"""

import functools

import jax
import jax.numpy as jnp

LANES = 128  # splash's sequences are whole multiples of a TPU register's width
CUDNN_HEAD_SIZE = 128  # the most that all GPUs from Ampere on can do
PALLAS_HEAD_SIZES = (16, 32, 64, 128)  # Triton's blocks are powers of two, its products 16 wide at the least
BLOCK = 512  # queries and keys at a time in splash; docs/speed.md has what others would cost


def obstacle(kernel, config, device):
  """Why `cudnn`, `splash` or `pallas` cannot serve this config on this device, and what to do; '' if it can.

  Args:
    kernel: 'cudnn', 'splash' or 'pallas'.
    config: with `model.compute_dtype` resolved.
    device: a JAX device, which need not be here.
  """
  c = config.model
  size = c.n_embd // max(c.n_head, 1)  # that there are heads is checked later
  wanted = {'cudnn': 'gpu', 'splash': 'tpu', 'pallas': 'gpu'}[kernel]
  if device.platform != wanted:
    return f'runs on a {wanted.upper()}, and this is a {device.platform.upper()}: set it to xla or auto'
  if kernel != 'pallas' and c.dropout and config.job != 'evaluate':
    return (f'has no dropout of attention weights, and config.model.dropout = {c.dropout}: set that to 0, or '
            'the kernel to xla' + ' or pallas' * (kernel == 'cudnn'))
  if kernel == 'cudnn' and c.compute_dtype != 'bfloat16':
    return f'computes in bfloat16, and config.model.compute_dtype = {c.compute_dtype}: change one of them'
  if kernel == 'cudnn' and (size % 8 or size > CUDNN_HEAD_SIZE):
    return (f'takes heads of a multiple of 8 up to {CUDNN_HEAD_SIZE}, and config.model.n_embd / '
            f'config.model.n_head = {size}: set it to xla')
  if kernel == 'pallas' and size not in PALLAS_HEAD_SIZES:
    return (f'takes heads of {", ".join(map(str, PALLAS_HEAD_SIZES))}, and config.model.n_embd / '
            f'config.model.n_head = {size}: set it to xla')
  if kernel in ('cudnn', 'pallas') and not _from_ampere_on(device):
    return f'needs an NVIDIA GPU from Ampere on, and this is a {device.device_kind}: set it to xla'
  if kernel == 'splash' and device.device_kind in ('TPU v2', 'TPU v3'):
    return f'needs a TPU from v4 on, and this is a {device.device_kind}: set it to xla'
  return ''


def _from_ampere_on(device):
  major = device.compute_capability.partition('.')[0]  # of an AMD GPU a name
  return major.isdigit() and int(major) >= 8


def best(config, device):
  """The kernel that `config.attention.kernel` = auto means on this device."""
  if not obstacle('cudnn', config, device):
    return 'cudnn'
  # Padding to whole registers is right for what is read in passing, too dear for all of training.
  if config.data.seq_len % LANES == 0 and not obstacle('splash', config, device):
    return 'splash'
  return 'xla'  # with dropout on a GPU, too: `pallas` is compiled and tested, and has never run on one


def cudnn(q, k, v):
  """softmax(q k^T / sqrt(head size)) v with a causal mask: [b, t, h, k] each, in bfloat16."""
  attend = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation='cudnn')
  return jax.shard_map(attend, out_specs=jax.typeof(q).sharding.spec)(q, k, v)


def splash(q, k, v, blocks=None, interpret=False):
  """softmax(q k^T / sqrt(head size)) v with a causal mask: [b, t, h, k] each.

  Args:
    q, k, v: any t; one that is no multiple of LANES is padded at the end, which nothing before it sees.
    blocks: splash's own BlockSizes; None: `block_sizes`.
    interpret: compute as JAX would on this CPU, to test the kernel where there is no TPU.
  """
  t, spec = q.shape[1], jax.typeof(q).sharding.spec
  padding = (0, 0), (0, -t % LANES), (0, 0), (0, 0)
  # The kernel leaves scaling to us.
  q, k, v = (jnp.pad(x, padding) for x in (q * q.shape[-1] ** -0.5, k, v))
  blocks = blocks or block_sizes(q.shape[1], q.shape[3])
  return _on_shards(functools.partial(_splash, blocks, interpret), spec)(q, k, v)[:, :t]


def block_sizes(t, k):
  """How splash cuts up sequences of t, a multiple of LANES, and heads of k (docs/speed.md: why so)."""
  from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, QKVLayout
  size = max(size for size in range(LANES, min(t, BLOCK) + 1, LANES) if t % size == 0)
  # One kernel for all gradients computes scores once, and writes those of q once for each block of keys.
  together = t <= 2 * size
  # A memory's rows are 128 wide: in narrower ones, of one position's head, part of each would be empty.
  layout = QKVLayout.SEQ_MINOR if k < LANES else QKVLayout.HEAD_DIM_MINOR
  return BlockSizes(*[size] * (6 if together else 8), use_fused_bwd_kernel=together, q_layout=layout,
                    k_layout=layout, v_layout=layout)


def _splash(blocks, interpret, q, k, v):
  """The kernel on one device's share."""
  from jax.experimental.pallas.ops.tpu import splash_attention as library
  _, t, h, _ = q.shape
  mask = library.MultiHeadMask([library.CausalMask((t, t))] * h)
  attend = library.make_splash_mha(mask, block_sizes=blocks, head_shards=1, q_seq_shards=1,
                                   interpret=interpret)
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  return jnp.swapaxes(jax.vmap(attend)(q, k, v), 1, 2)


def _on_shards(attend, spec):
  """attend(q, k, v) on each device's share, [b, t, h, k] laid out as `spec` says; nothing is sent.

  JAX cannot see in a kernel of Pallas that devices which have the same heads get the same gradients, and
  would sum them up. So the backward pass is mapped over devices as the forward one is, not derived from it.
  """
  mapped = functools.partial(jax.shard_map, check_vma=False)
  of_rows = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # what else is kept are tables of blocks

  @jax.custom_vjp
  def on_shards(q, k, v):
    return mapped(attend, out_specs=spec)(q, k, v)

  def forward(q, k, v):
    def keep(q, k, v):
      y, pull = jax.vjp(attend, q, k, v)
      return y, [x for x in jax.tree.leaves(pull) if of_rows(x)]  # [b, h, ...] each
    return mapped(keep, out_specs=(spec, jax.P(spec[0], spec[2])))(q, k, v)

  def backward(kept, dy):
    def pull(kept, dy):
      kept, again = iter(kept), jax.vjp(attend, dy, dy, dy)[1]  # for its tables alone: XLA drops the rest
      return jax.tree.map(lambda x: next(kept) if of_rows(x) else x, again)(dy)
    return mapped(pull, out_specs=spec)(kept, dy)

  on_shards.defvjp(forward, backward)
  return on_shards
