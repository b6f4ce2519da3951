"""What every sub-command leaves behind: one JSON file of one form."""

import json
import math
import statistics
from pathlib import Path

from gptjax.files import atomic

OURS = 'gptjax'


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


def measurement(what, who, unit, value, turn, **more):
  """One measurement of one contender.

  Args:
    what, who, unit: as of `row`.
    value: what was found.
    turn: from 1; contenders that were measured interleaved have a figure in each turn. 0: before all of
      them were there; it counts only if there are no others.
    more: what else is true of it. 'peak', FLOP/s of the device, and 'flops', {name: FLOPs of a unit of work},
      give the row's `mfu_NAME`.
  """
  return {'what': what, 'who': who, 'unit': unit, 'value': value, 'turn': turn, 'more': more}


def summarize(figures):
  """A row for each contender of each thing measured, both in the order in which `figures` first have them.

  The ratio of rates (units `.../s`) is the median of those of single turns, so that a device whose speed
  drifts cancels; None where gptjax was not measured in the same turns.

  Args:
    figures: dicts of `figure`; those of the journal also have their session.
  """
  found = {}
  for each in figures:
    found.setdefault((each['what'], each['who']), []).append(each)
  turns = {key: {(each.get('session'), each['turn']): each['value'] for each in of_key if each['turn']}
           for key, of_key in found.items()}
  made, order = [], list(dict.fromkeys(what for what, _ in found))
  for (what, who), of_key in sorted(found.items(), key=lambda item: order.index(item[0][0])):
    first, more = of_key[0], of_key[-1]['more']
    values = [each['value'] for each in of_key if each['turn']] or [first['value']]
    ours, theirs = turns.get((what, OURS), {}), turns[what, who]
    pairs = [ours[turn] / theirs[turn] for turn in theirs if turn in ours]
    compared = pairs and who != OURS and first['unit'].endswith('/s')
    one = row(what, who, first['unit'], values, statistics.median(pairs) if compared else None)
    one |= {name: x for name, x in more.items() if name not in ('flops', 'peak')}
    if more.get('peak'):
      one |= {f'mfu_{name}': one['median'] * flops / more['peak'] for name, flops in more['flops'].items()}
    made.append(one)
  return made


def format_number(x):
  """In words for people: four digits, or all before the point."""
  digits = max(0, 3 - math.floor(math.log10(abs(x)))) if x else 0
  return f'{x:,.{digits}f}'


def gate(what, sign, wanted, found, aim=None):
  """What this project asks of itself, and whether it holds.

  Args:
    what: is asked.
    sign: '>=' or '<='.
    wanted: what must be reached.
    found: what was measured.
    aim: what is hoped for, beyond `wanted`; None: nothing more.
  """
  holds = lambda bound: found >= bound if sign == '>=' else found <= bound
  made = {'what': what, 'sign': sign, 'wanted': wanted, 'found': found, 'holds': holds(wanted)}
  return made if aim is None else {**made, 'aim': aim, 'reached': holds(aim)}


def print_gates(gates):
  width = max((len(gate['what']) for gate in gates), default=0)
  for gate in gates:
    print(f'{gate["what"]:<{width}}  {gate["found"]:>10,.2f}, wanted {gate["sign"]} {gate["wanted"]:,g}'
          + (f', aim {gate["aim"]:,g}' if 'aim' in gate else '') + _verdict(gate))


def _verdict(gate):
  if not gate['holds']:
    return '   not reached'
  return '' if 'aim' not in gate else '   the aim is reached' if gate['reached'] else '   passed'


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
