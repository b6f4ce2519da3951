"""The result file of every sub-command: JSON of one form."""

import argparse
import json
import math
import os
import statistics
from pathlib import Path

from gptjax.storage.files import atomic, paths

OURS = 'gptjax'


def add_out(parser, beside='', required=False):
  """Add the flag --out to a parser: a file that can be written, so that no measurement is lost at its end.

  Args:
    parser: argparse parser.
    beside: what is written next to the file, for the help.
    required: whether the flag must be given; else the default is '', no file.
  """
  parser.add_argument('--out', type=replaced_file, default='', required=required,
                      help='JSON file for the results' + beside)


def replaced_file(text):
  """The `type` of a flag for a file that is replaced: its absolute path; makes its folder. '' stays ''."""
  return _writable(text, replaces=True)


def appended_file(text):
  """The `type` of a flag for a file that is appended to, as `replaced_file`."""
  return _writable(text, replaces=False)


def _writable(text, replaces):
  if not text:
    return text
  path = Path(paths.flag(text))
  try:
    if path.exists() and not path.is_file():
      raise argparse.ArgumentTypeError(f'{path} exists and is not a regular file: name a file')
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = path if path.exists() and not replaces else path.parent
  except OSError as error:
    raise argparse.ArgumentTypeError(f'{path} cannot be made: {error.strerror}') from None
  if not os.access(changed, os.W_OK):
    raise argparse.ArgumentTypeError(f'{changed} cannot be written')
  return str(path)


def row(what, who, unit, values, ratio=None):
  """The summary of all measurements of one quantity for one contender.

  Args:
    what: the measured quantity; rows of the same `what` are compared.
    who: contender.
    unit: 'tokens/s', for example.
    values: measured values, one per turn.
    ratio: how many times as fast as this contender gptjax is; None: for gptjax itself, or not compared.
  """
  return {'what': what, 'who': who, 'unit': unit, 'median': statistics.median(values), 'least': min(values),
          'most': max(values), 'turns': len(values), 'ratio': ratio}


def measurement(what, who, unit, value, turn, **more):
  """One measurement of one contender.

  Args:
    what, who, unit: see `row`.
    value: the measured value.
    turn: from 1; contenders that were measured interleaved have a measurement in each turn. 0: measured
      before all contenders had started; used only if there are no other turns.
    more: further fields of the row. 'peak', FLOP/s of the device, and 'flops', {name: FLOPs per unit of
      work}, give the row's `mfu_NAME`.
  """
  return {'what': what, 'who': who, 'unit': unit, 'value': value, 'turn': turn, 'more': more}


def summarize(measurements):
  """A list with a row for each quantity and contender, both in the order of their first measurement.

  The ratio of rates (units `.../s`) is the median of the ratios of single turns, which cancels a drift of the
  device's speed; None where gptjax was not measured in the same turns.

  Args:
    measurements: dicts of `measurement`; those of the journal also have their session.
  """
  groups = {}
  for each in measurements:
    groups.setdefault((each['what'], each['who']), []).append(each)
  turns = {key: {(each.get('session'), each['turn']): each['value'] for each in group if each['turn']}
           for key, group in groups.items()}
  rows, order = [], list(dict.fromkeys(what for what, _ in groups))
  for (what, who), group in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
    first, more = group[0], group[-1]['more']
    values = [each['value'] for each in group if each['turn']] or [first['value']]
    our_turns, turns_of_who = turns.get((what, OURS), {}), turns[what, who]
    ratios = [our_turns[turn] / value for turn, value in turns_of_who.items() if turn in our_turns]
    is_compared = ratios and who != OURS and first['unit'].endswith('/s')
    summary = row(what, who, first['unit'], values, statistics.median(ratios) if is_compared else None)
    summary |= {name: x for name, x in more.items() if name not in ('flops', 'peak')}
    if more.get('peak'):
      summary |= {f'mfu_{name}': summary['median'] * flops / more['peak']
                  for name, flops in more['flops'].items()}
    rows.append(summary)
  return rows


def format_number(x):
  """A number with four significant digits, or with all digits before the decimal point if there are more."""
  if not math.isfinite(x):
    return str(x)
  digits = max(0, 3 - math.floor(math.log10(abs(x)))) if x else 0
  return f'{x:,.{digits}f}'


def gate(what, sign, target, value, goal=None):
  """A performance gate: a target of this project for a measured value, and whether the value meets it.

  Args:
    what: the measured quantity.
    sign: '>=' or '<='.
    target: bound that the value must meet; the key in files is 'wanted'.
    value: the measured value; the key in files is 'found'.
    goal: bound beyond the target that would be better still, 'aim' in files; None: there is none.
  """
  meets = lambda bound: value >= bound if sign == '>=' else value <= bound
  fields = {'what': what, 'sign': sign, 'wanted': target, 'found': value, 'holds': meets(target)}
  return fields if goal is None else {**fields, 'aim': goal, 'reached': meets(goal)}


def print_gates(gates):
  """Print one line per gate."""
  width = max((len(gate['what']) for gate in gates), default=0)
  for gate in gates:
    print(f'{gate["what"]:<{width}}  {gate["found"]:>10,.2f}, target {gate["sign"]} {gate["wanted"]:,g}'
          + (f', goal {gate["aim"]:,g}' if 'aim' in gate else '') + _verdict(gate))


def _verdict(gate):
  if not gate['holds']:
    return '   target missed'
  return '   goal reached' if gate.get('reached') else '   target met'


def write(path, benchmark, machine, rows, gates=(), **details):
  """Write {'benchmark', 'machine', 'rows', 'gates', 'details'} to a file; '': write nothing.

  Args:
    path: of the JSON file.
    benchmark: name of the sub-command.
    machine: of `machine.machine_info`.
    rows, gates: of `row` and `gate`.
    details: further results of the sub-command.
  """
  if path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)  # it may have been removed since
    atomic.write(path, json.dumps({'benchmark': benchmark, 'machine': machine, 'rows': list(rows),
                                   'gates': list(gates), 'details': details}, indent=1) + '\n')
