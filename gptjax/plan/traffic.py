"""FLOPs and device-memory traffic of the kernels of a compiled program."""

import re
from collections import namedtuple

from gptjax.plan import hlo

# One kernel: runs per step, floating-point operations and bytes per run.
Kernel = namedtuple('Kernel', 'name runs flops bytes')

NO_TRAFFIC = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'while',
              'conditional', 'call', 'partition-id', 'replica-id', 'add-dependency', 'opt-barrier', 'send',
              'recv')
KERNEL_CALLS = re.compile(r'custom_call_target="(tpu_custom_call|__cublas|__cudnn|triton|__gpu\$xla)')


def kernels(text):
  """Return [Kernel] of a program, without communication between devices."""
  result = []
  for instruction, context in hlo.instructions(text):
    work = hlo.matmul_flops(instruction, context.types)
    if context.fused:
      result[-1] = result[-1]._replace(flops=result[-1].flops + work)
    else:
      result.append(Kernel(instruction.name, context.runs, work, bytes_moved(instruction, context)))
  return [kernel for kernel in result if kernel.flops or kernel.bytes]


def bytes_moved(instruction, context):
  """Bytes that one run of an instruction reads from and writes to device memory."""
  op, inputs = instruction.op, hlo.operands(instruction.rest)
  if (op in NO_TRAFFIC or op.endswith(('-done', '-update'))
      or op.removesuffix('-start') in hlo.COLLECTIVE_KINDS
      or (op == 'custom-call' and not KERNEL_CALLS.search(instruction.rest))):
    return 0
  if op.endswith('-start'):  # a copy to or from on-chip memory: counted once
    return (hlo.array_bytes(instruction.type) or [0])[0]
  if op in ('dynamic-slice', 'slice', 'gather'):
    return 2 * bytes_in_memory(instruction.type)
  if op == 'dynamic-update-slice':
    return 2 * bytes_in_memory(context.types[inputs[1]])
  if op == 'fusion':
    called = context.computations[re.search(r'calls=%?([\w.-]+)', instruction.rest)[1]]
    reads = sum(min(bytes_in_memory(context.types[name]), _read(called, index, context.computations))
                for index, name in enumerate(inputs))
    return reads + (_written(called) if bytes_in_memory(instruction.type) else 0)
  input_types = [context.types[name] for name in inputs if name in context.types]
  total = bytes_in_memory(instruction.type) + sum(map(bytes_in_memory, input_types))
  return total + hlo.splash_cost(instruction, context.types)[1]


def bytes_in_memory(kind):
  """Bytes of a type in device memory, without arrays in on-chip memory spaces."""
  return sum(sum(hlo.array_bytes(array)) for array in re.findall(r'\w+\[[\d,]*\](?:\{[^}]*\})?', kind)
             if not re.search(r'S\(\d+\)', array))


def _read(called, index, computations):
  """Bytes that a fusion reads of its operand `index`; of an operand that it only slices, the slices."""
  name = next(instruction.name for instruction in called if instruction.op == 'parameter'
              and instruction.rest.startswith(f'{index})'))
  total = 0
  for instruction in called:
    for position, operand in enumerate(hlo.operands(instruction.rest)):
      if operand != name or instruction.op == 'parameter':
        continue
      if instruction.op in ('dynamic-slice', 'slice', 'gather') and position == 0:
        total += sum(hlo.array_bytes(instruction.type))
      elif instruction.op == 'fusion':
        inner = computations[re.search(r'calls=%?([\w.-]+)', instruction.rest)[1]]
        total += _read(inner, position, computations)
      elif not (instruction.op == 'dynamic-update-slice' and position == 0):  # in place
        return float('inf')
  return total


def _written(called):
  """Bytes that a fusion writes; of an array that it updates in place, the updated part."""
  ops = {instruction.name: instruction for instruction in called}
  types = {name: instruction.type for name, instruction in ops.items()}
  last = called[-1]
  outputs = [ops[name] for name in hlo.operands(last.rest)] if last.op == 'tuple' else [last]
  total = 0
  for instruction in outputs:
    while instruction.op == 'bitcast':
      instruction = ops[hlo.operands(instruction.rest)[0]]
    in_place = instruction.op == 'dynamic-update-slice'
    changed = types[hlo.operands(instruction.rest)[1]] if in_place else instruction.type
    total += bytes_in_memory(instruction.type) and sum(hlo.array_bytes(changed))
  return total
