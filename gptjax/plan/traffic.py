"""What the kernels of a compiled program read and write in the device's memory, and compute."""

import re
from collections import namedtuple

from gptjax.plan import hlo

# Of one kernel: runs a step, floating-point operations and bytes of one run.
Kernel = namedtuple('Kernel', 'name runs flops bytes')

NO_TRAFFIC = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'while',
              'conditional', 'call', 'partition-id', 'replica-id', 'add-dependency', 'opt-barrier', 'send',
              'recv')
KERNEL_CALLS = re.compile(r'custom_call_target="(tpu_custom_call|__cublas|__cudnn|triton|__gpu\$xla)')


def kernels(text):
  """[Kernel] of a program; what is sent between devices is left out."""
  found = []
  for instruction, at in hlo.instructions(text):
    work = hlo.matmul_flops(instruction, at.types)
    if at.fused:
      found[-1] = found[-1]._replace(flops=found[-1].flops + work)
    else:
      found.append(Kernel(instruction.name, at.runs, work, bytes_moved(instruction, at)))
  return [kernel for kernel in found if kernel.flops or kernel.bytes]


def bytes_moved(instruction, at):
  """Bytes that one run of an instruction reads from and writes to the device's memory."""
  op, inputs = instruction.op, hlo.operands(instruction.rest)
  if (op in NO_TRAFFIC or op.endswith(('-done', '-update'))
      or op.removesuffix('-start') in hlo.COLLECTIVE_KINDS
      or (op == 'custom-call' and not KERNEL_CALLS.search(instruction.rest))):
    return 0
  if op.endswith('-start'):  # from memory to what is nearer, or back: once
    return (hlo.array_bytes(instruction.type) or [0])[0]
  if op in ('dynamic-slice', 'slice', 'gather'):
    return 2 * bytes_in_memory(instruction.type)
  if op == 'dynamic-update-slice':
    return 2 * bytes_in_memory(at.types[inputs[1]])
  if op == 'fusion':
    called = at.computations[re.search(r'calls=%?([\w.-]+)', instruction.rest)[1]]
    reads = sum(min(bytes_in_memory(at.types[name]), _read(called, index, at.computations))
                for index, name in enumerate(inputs))
    return reads + (_written(called) if bytes_in_memory(instruction.type) else 0)
  once = bytes_in_memory(instruction.type) + sum(bytes_in_memory(at.types[name]) for name in inputs
                                                 if name in at.types)
  return once + hlo.splash_cost(instruction, at.types)[1]


def bytes_in_memory(kind):
  """Bytes of a type that lie in the device's memory, and not in a memory space nearer to its cores."""
  return sum(sum(hlo.array_bytes(array)) for array in re.findall(r'\w+\[[\d,]*\](?:\{[^}]*\})?', kind)
             if not re.search(r'S\(\d+\)', array))


def _read(called, index, computations):
  """Bytes that a fusion reads of its input `index`: of what it only cuts from, the cuts."""
  name = next(one.name for one in called if one.op == 'parameter' and one.rest.startswith(f'{index})'))
  total = 0
  for one in called:
    for place, given in enumerate(hlo.operands(one.rest)):
      if given != name or one.op == 'parameter':
        continue
      if one.op in ('dynamic-slice', 'slice', 'gather') and place == 0:
        total += sum(hlo.array_bytes(one.type))
      elif one.op == 'fusion':
        inner = computations[re.search(r'calls=%?([\w.-]+)', one.rest)[1]]
        total += _read(inner, place, computations)
      elif not (one.op == 'dynamic-update-slice' and place == 0):  # which is done in place
        return float('inf')
  return total


def _written(called):
  """Bytes that a fusion writes: of what it only changes a part of, that part."""
  types, ops = {one.name: one.type for one in called}, {one.name: one for one in called}
  last = called[-1]
  outputs = [ops[name] for name in hlo.operands(last.rest)] if last.op == 'tuple' else [last]
  total = 0
  for one in outputs:
    while one.op == 'bitcast':
      one = ops[hlo.operands(one.rest)[0]]
    changed = types[hlo.operands(one.rest)[1]] if one.op == 'dynamic-update-slice' else one.type
    total += bytes_in_memory(one.type) and sum(hlo.array_bytes(changed))
  return total
