"""What every sub-command leaves behind: one JSON file of one form."""

import json
import statistics
from pathlib import Path

from gptjax import atomic


def row(what, who, unit, values, ratio=None):
  """One figure of one contender.

  Args:
    what: was measured; rows of the same `what` are beside each other.
    who: contender.
    unit: 'tokens/s', for example.
    values: what was found, a number a turn.
    ratio: how many times as fast as this contender gptjax is; None: for gptjax itself, or alone.
  """
  return {'what': what, 'who': who, 'unit': unit, 'median': statistics.median(values), 'least': min(values),
          'most': max(values), 'turns': len(values), 'ratio': ratio}


def gate(what, sign, wanted, found):
  """What this project asks of itself, and whether it holds; sign: '>=' or '<='."""
  return {'what': what, 'sign': sign, 'wanted': wanted, 'found': found,
          'holds': found >= wanted if sign == '>=' else found <= wanted}


def show_gates(gates):
  width = max((len(gate['what']) for gate in gates), default=0)
  for gate in gates:
    print(f'{gate["what"]:<{width}}  {gate["found"]:>10,.2f}, wanted {gate["sign"]} {gate["wanted"]:,g}'
          + ('' if gate['holds'] else '   not reached'))


def write(path, benchmark, machine, rows, gates=(), **details):
  """Writes {'benchmark', 'machine', 'rows', 'gates', 'details'}; '': nowhere.

  Args:
    path: of the JSON file.
    benchmark: name of the sub-command.
    machine: of `machine.machine`.
    rows, gates: of `row` and `gate`.
    details: whatever else a sub-command has found.
  """
  if path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps({'benchmark': benchmark, 'machine': machine, 'rows': list(rows),
                                   'gates': list(gates), 'details': details}, indent=1) + '\n')
