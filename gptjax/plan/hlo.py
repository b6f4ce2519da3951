"""FLOPs and network traffic of a compiled program, from its HLO text; loop bodies count once per iteration.

XLA's own `cost_analysis` counts the body of a loop once and does not report network traffic.
"""

import math
import re
from collections import Counter, namedtuple

import numpy as np

COLLECTIVE_KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute',
                    'ragged-all-to-all', 'collective-broadcast')
BITS = {'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16, 'bf16': 16, 'f16': 16, 'f32': 32,
        's32': 32, 'u32': 32, 'f64': 64, 's64': 64, 'u64': 64, 'f8e4m3fn': 8, 'f8e5m2': 8}

# sizes: bytes of each output array; groups: int[groups, devices per group], positions in the mesh;
# runs: per step; depth: number of enclosing loops; between_slices: sent by the hosts of TPU slices.
Collective = namedtuple('Collective', 'kind sizes groups runs depth between_slices', defaults=(False,))
Instruction = namedtuple('Instruction', 'name type op rest')


def collectives(text):
  """Return [Collective] of a program (raises ValueError for a loop of unknown length).

  An all-reduce that XLA fuses with a slice counts as a `reduce-scatter`. A collective that XLA splits over
  several fusions, to overlap it with their computation, counts as one.
  """
  result, seen = [], set()  # seen: chains of split collectives
  for instruction, context in instructions(text):
    if instruction.op == 'send' and '_xla_megascale_transfer_type' in instruction.rest:
      result.append(_between_slices(instruction, context))
    if (kind := instruction.op.removesuffix('-start')) not in COLLECTIVE_KINDS:
      continue
    if 'chain_id=' in instruction.rest:
      chain = *re.findall(r'(?:channel_id=|chain_id=")(\d+)', instruction.rest), context.body
      if chain in seen:
        continue
      seen.add(chain)
    groups, arrays = _groups(instruction.rest), array_bytes(instruction.type)
    if kind == 'all-reduce' and context.path[-1].startswith('all-reduce-scatter'):
      kind, arrays = 'reduce-scatter', [size // groups.shape[1] for size in arrays]
    if instruction.op in ('all-gather-start', 'reduce-scatter-start'):  # inputs, then outputs
      arrays = arrays[len(arrays) // 2:]
    elif instruction.op == 'collective-permute-start':
      arrays = arrays[1:2]
    result.append(Collective(kind, arrays, groups, context.runs, context.depth))
  return result


def _between_slices(instruction, context):
  """Return the part of a collective that crosses the network between TPU slices, sent by hosts."""
  kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)[1].lower().replace('_', '-')
  slices, last = re.search(r'_xla_megascale_target="\{([\d,]+)\}x\{0:(\d+)\}"', instruction.rest).groups()
  per_slice, n_slices = int(last) + 1, len(slices.split(','))
  groups = np.arange(per_slice * n_slices).reshape(n_slices, per_slice).T
  return Collective(kind, array_bytes(instruction.type)[:1], groups, context.runs, context.depth, True)


def output_bytes(collective):
  """Output bytes of a Collective per device and step."""
  return collective.runs * sum(collective.sizes)


def full_bytes(collective):
  """Bytes per step of the full arrays: the input of a reduce-scatter, the output of all other collectives."""
  return output_bytes(collective) * (collective.groups.shape[1] if collective.kind == 'reduce-scatter' else 1)


def sent_bytes(collective):
  """Bytes that each device sends for a Collective per step, with ring algorithms.

  With n devices in a group: (n - 1) / n of the full array, twice that for an all-reduce; all of it for a
  permutation.
  """
  if collective.kind in ('collective-permute', 'collective-broadcast'):
    return output_bytes(collective)
  n = collective.groups.shape[1]
  return full_bytes(collective) * (n - 1) / n * (2 if collective.kind == 'all-reduce' else 1)


def by_kind(collectives, amount=output_bytes):
  """{kind: sum of an amount per step}; what hosts send between slices is a kind of its own."""
  sums = Counter()
  for one in collectives:
    sums[f'{one.kind} between slices' if one.between_slices else one.kind] += amount(one)
  return dict(sums)


def flops(text):
  """Floating-point operations of all matmuls and convolutions, per step and device."""
  return sum(context.runs * matmul_flops(instruction, context.types)
             for instruction, context in instructions(text))


def matmul_flops(instruction, types):
  """Floating-point operations of one instruction if it is a matmul or a convolution, else 0."""
  count = {'dot': _dot, 'convolution': _convolution, 'custom-call': _custom_call}.get(instruction.op)
  return count(instruction, types) if count else 0


Context = namedtuple('Context', 'types path body runs depth fused computations')


def instructions(text):
  """Yield (Instruction, Context) in the order of the text, including called, fused and loop computations.

  Context: types {name: type} of the computation, path (names from the entry on), body (of the inner loop),
  runs (per step), depth (number of enclosing loops), fused (whether it is part of a kernel), computations
  {name: [Instruction]} of the whole text.
  """
  computations, entry = {}, None
  for line in text.splitlines():
    if line.endswith('{') and (start := re.match(r'(ENTRY )?%?([\w.-]+) .*\{$', line)):
      body = computations[start[2]] = []
      entry = start[2] if start[1] else entry
    elif computations and (parts := re.match(r'\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$', line)):
      body.append(Instruction(*parts.groups()))
    elif line.startswith('"'):  # profiler metadata of Pallas is on a separate line
      body[-1] = body[-1]._replace(rest=body[-1].rest + line)
  yield from _visit_computation(computations, (entry,), entry, 1, 0, False)


def _visit_computation(computations, path, body, runs_per_step, depth, fused):
  listed = computations[path[-1]]
  types = {instruction.name: instruction.type for instruction in listed}
  for instruction in listed:
    yield instruction, Context(types, path, body, runs_per_step, depth, fused, computations)
    if instruction.op == 'while':
      inside = re.search(r'body=%?([\w.-]+)', instruction.rest)[1]
      body_runs = runs_per_step * _trips(instruction, listed, computations)
      yield from _visit_computation(computations, (*path, inside), inside, body_runs, depth + 1, False)
    elif not instruction.op.endswith(('-done', '-update')):
      for called in re.findall(r'(?:to_apply|calls)=%?([\w.-]+)', instruction.rest):
        inside = (fused or instruction.op == 'fusion'
                  or ('to_apply' in instruction.rest and instruction.op != 'call'))
        yield from _visit_computation(computations, (*path, called), body, runs_per_step, depth, inside)


def _trips(loop, enclosing, computations):
  """Return the trip count of a loop: from XLA, or the limit of its counter minus its start."""
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
    return int(known[1])
  name = re.search(r'condition=%?([\w.-]+)', loop.rest)[1]
  condition = {instruction.name: instruction for instruction in computations[name]}
  last = list(condition.values())[-1]
  try:
    counter, limit = (condition[name] for name in operands(last.rest))
    assert last.op == 'compare' and 'direction=LT' in last.rest and counter.op == 'get-tuple-element'
    index = int(re.search(r'index=(\d+)', counter.rest)[1])
    outside = {instruction.name: instruction for instruction in enclosing}
    start = outside[operands(outside[operands(loop.rest)[0]].rest)[index]]
    while start.op in ('copy', 'bitcast'):
      start = outside[operands(start.rest)[0]]
    return _constant(limit) - _constant(start)
  except (AssertionError, KeyError, TypeError, ValueError):
    raise ValueError(f'the trip count of the loop {loop.name} is unknown') from None


def _constant(instruction):
  return int(re.match(r'(-?\d+)\)', instruction.rest)[1])


def operands(rest):
  """Return the names of the operands of an instruction."""
  return [name.split()[-1].lstrip('%') for name in re.sub(r'/\*.*?\*/', '', rest.partition(')')[0]).split(',')
          if name.strip()]


def _shapes(text):
  return [(kind, [int(size) for size in dimensions.split(',') if size])
          for kind, dimensions in re.findall(r'\b([a-z]+\d*\w*)\[([\d,]*)\]', text) if kind in BITS]


def array_bytes(text):
  """Return the bytes of each array of a type."""
  return [math.prod(shape) * BITS[kind] // 8 for kind, shape in _shapes(text)]


def _shape(text):
  return _shapes(text)[0][1]


def _dot(instruction, types):
  """2 x output elements x contracted length."""
  left = _shape(types[operands(instruction.rest)[0]])
  summed = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.rest)[1]
  return 2 * math.prod(_shape(instruction.type)) * math.prod(left[int(d)] for d in summed.split(',') if d)


def _custom_call(instruction, types):
  """FLOPs of a custom call: cuBLAS and attention kernels; others count as 0."""
  if '"__cublas$' in instruction.rest:
    left = _shape(types[operands(instruction.rest)[0]])
    summed = re.search(r'"lhs_contracting_dimensions":\[(.*?)\]', instruction.rest)[1]
    length = math.prod(left[int(d)] for d in re.findall(r'\d+', summed))
    return 2 * math.prod(_shape(instruction.type)) * length
  if '"__cudnn$fmha' in instruction.rest:  # two matmuls forward, five backward
    q = math.prod(_shape(types[operands(instruction.rest)[0]]))
    t = int(re.findall(r'\d+', re.search(r'"dimensions": ?\[(.*?)\]', instruction.rest)[1])[-1])
    window = re.search(r'"sliding_window_length": ?(\d+)', instruction.rest)
    products = 5 if 'Backward' in instruction.rest else 2
    return products * 2 * q // t * _attended(t, int(window[1]) if window else 0)
  if kernel := re.search(r'flash_(forward|dq|dkv)', instruction.rest):  # the kernels of gptjax
    # Queries have the most heads of the arrays [b, t, heads, k].
    b, t, h, k = max(shape for name in operands(instruction.rest) if len(shape := _shape(types[name])) == 4)
    return {'forward': 2, 'dq': 3, 'dkv': 4}[kernel[1]] * 2 * b * h * k * _attended(t, _window(instruction))
  return splash_cost(instruction, types)[0]


def _attended(t, window):
  """Pairs of a query and a key that it attends to, of t positions; `window` as in the config."""
  window = window if 0 < window < t else t
  return window * t - window * (window - 1) // 2


def _window(instruction):
  """The window of a Pallas kernel, from the scope that `gptjax.kernels` calls it in; 0: none."""
  scope = re.search(r'\bwindow_(\d+)', instruction.rest)
  return int(scope[1]) if scope else 0


def splash_cost(instruction, types):
  """Return (floating-point operations, bytes read again) of a splash kernel; (0, 0) for other instructions.

  Blocks on the diagonal, and where a window begins, are computed completely. The arrays that are streamed for
  each pair of blocks (keys and values, for each query head of their group; queries and their gradients in the
  dkv kernel) are read again for each pair but the first.
  """
  kernel = re.match(r'splash_mha_(fwd|dq|dkv)', instruction.name)
  if not kernel or instruction.op != 'custom-call':
    return 0, 0
  blocks = {name: int(size) for name, size in re.findall(r'block_(\w+)\\": (\d+)', instruction.rest)}
  suffix = '' if kernel[1] == 'fwd' else f'_{kernel[1]}'
  sizes_q, sizes_kv = blocks[f'q{suffix}'], blocks[f'kv{suffix}']
  # A batch of one has no dimension; integer operands list the blocks.
  operand_types = [types[name] for name in operands(instruction.rest)]
  arrays = [kind for kind in operand_types if kind.startswith(('bf16', 'f32'))]
  t = max(_shape(arrays[0])[-2:])
  before = (_window(instruction) or t) - 1  # keys before a query that it attends to
  pairs = sum(-(-(i + 1) * sizes_q // sizes_kv) - max(0, i * sizes_q - before) // sizes_kv
              for i in range(t // sizes_q))
  fused_backward = len(_shapes(instruction.type)) > 4  # one kernel for all three gradients
  products = {'fwd': 2, 'dq': 3, 'dkv': 5 if fused_backward else 4}[kernel[1]]
  streamed, size, group = arrays[:1] + arrays[3:], sizes_q, 1
  if kernel[1] != 'dkv':
    streamed, size = arrays[1:3], sizes_kv
    group = math.prod(_shape(arrays[0])) // math.prod(_shape(arrays[1]))
  bytes_reread = sum(sum(array_bytes(kind)) for kind in streamed) * (group * pairs * size / t - 1)
  return products * 2 * math.prod(_shape(arrays[0])) // t * pairs * sizes_q * sizes_kv, int(bytes_reread)


def _convolution(instruction, types):
  """2 x the multiplications of input and kernel elements, without padding.

  TPUs express matmuls as convolutions; batch dimensions may be spatial dimensions with a kernel as large as
  the input, strided and dilated so that each element is multiplied with one other.
  """
  left, kernel = (_shape(types[name]) for name in operands(instruction.rest)[:2])
  out = _shape(instruction.type)
  label = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', instruction.rest)
  window = re.search(r'window=\{(.*?)\}', instruction.rest)
  window = dict(part.split('=') for part in window[1].split()) if window else {}
  groups = int((re.search(r'batch_group_count=(\d+)', instruction.rest) or (0, 1))[1])
  total = 2 * out[label[3].index('b')] * out[label[3].index('f')] * kernel[label[2].index('i')] / groups
  for d in range(len(left) - 2):
    field = lambda name, default: window.get(name, 'x'.join([default] * (len(left) - 2))).split('x')[d]
    low = int(field('pad', '0_0').split('_')[0])
    size, stride = (int(field(name, '1')) for name in ('size', 'stride'))
    lhs_dilation, rhs_dilation = (int(field(name, '1')) for name in ('lhs_dilate', 'rhs_dilate'))
    starts = np.arange(out[label[3].index(str(d))])[:, None] * stride
    positions = starts + np.arange(size) * rhs_dilation - low
    inside = (positions >= 0) & (positions < (left[label[1].index(str(d))] - 1) * lhs_dilation
                                 + 1) & (positions % lhs_dilation == 0)
    total *= inside.sum()
  return int(total)


def _groups(rest):
  """Return int[groups, devices per group] from any notation; [[0]] if there is none, as on one device."""
  if pairs := re.search(r'source_target_pairs=\{(.*?)\}\}', rest):
    return np.array([[int(n) for n in pair.split(',')] for pair in re.findall(r'\{([\d,]+)', pairs[0])])
  if listed := re.search(r'replica_groups=\{(\{.*?\})\}', rest):
    return np.array([[int(n) for n in group.split(',')] for group in re.findall(r'\{([\d,]+)\}', listed[1])])
  if iota := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', rest):
    shape, sizes, order = ([int(n) for n in part.split(',')] if part else None for part in iota.groups())
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(shape)
  if mesh := re.search(r"replica_groups=mesh\[(.*?)\](?:.*?)\{(.*?)\}", rest):
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    names, inside = list(sizes), re.findall(r"'(\w+)'", mesh[2])
    order = [*(n for n in names if n not in inside), *inside]
    devices = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
    return devices.transpose([names.index(n) for n in order]).reshape(-1, math.prod(sizes[n] for n in inside))
  return np.zeros((1, 1), int)
