"""What a benchmark finds, on disk as soon as it is known: JSON lines, readable after a kill at any moment.

Each line is one record with its `kind`, its other fields and a checksum:

  start    benchmark, machine (see `machine.machine`); the first record
  device   name: of what computes, once that is known
  part     name, share (seconds): the part that begins; what follows belongs to it
  fact     what, value
  figure   of `results.figure`, and session: figures of one session and one turn were measured interleaved
  gate     of `results.gate`
  lost     who, why: a contender of which there are no further figures
  details  any fields: what else a sub-command has found
  end      seconds, error (None: the part is complete), stderr (its last words)

`usual` makes of them what `results.write` writes.
"""

import json
import math
import os
from pathlib import Path

from gptjax.benchmark import results
from gptjax.errors import InputError
from gptjax.files import paths, records


class Journal:
  """Appends records to a file, each synced to disk and then printed as one line.

  Args:
    path: of the file, whose folder exists; '': nothing is kept or printed.
  """

  def __init__(self, path):
    self.path = path

  def add(self, kind, **fields):
    """Appends a record; several processes may do so, one after the other."""
    if not self.path:
      return
    if kind == 'figure':
      fields = {**fields, 'session': os.getpid()}
    line = json.dumps(records.add_checksum(_finite({'kind': kind, **fields}))).encode() + b'\n'
    with open(self.path, 'ab+') as file:
      if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b'\n':
        line = b'\n' + line  # the process that wrote last was killed within a line
      file.write(line)
      file.flush()
      os.fsync(file.fileno())
    if text := format_record(kind, fields):
      print(text, flush=True)


def add_flag(parser):
  """Adds --journal, the path of a Journal, to a command's flags."""
  parser.add_argument('--journal', type=paths.flag, default='',
                      help='file to which each figure is appended as soon as it is known (JSON lines)')


def read(path):
  """The records of a file, without damaged ones, which are reported on stderr."""
  return records.read_lines(path, lambda line: records.remove_checksum(records.parse(line)))


def format_record(kind, fields):
  """The line that is printed for a record; '' for none."""
  if kind == 'fact':
    return f'{fields["what"]}: {fields["value"]}'
  if kind == 'figure':
    turn = f'turn {fields["turn"]}' if fields['turn'] else 'first turn'
    value = results.format_number(fields['value'])
    return f'{fields["what"]}, {fields["who"]}, {turn}: {value} {fields["unit"]}'
  if kind == 'lost':
    return f'{fields["who"]} {fields["why"]}'
  if kind == 'device':
    return f'device: {fields["name"]}'
  if kind == 'part':
    return f'\n=== {fields["name"]}, at most {fields["share"]:.0f} s'
  if kind == 'end':
    return f'=== {fields["seconds"]:.0f} s' + (f': {fields["error"]}' if fields['error'] else '')
  return ''


def to_results(found):
  """The arguments of `results.write` but its path, from records: a dict.

  Gates are those that the records hold; a benchmark may add those that it computes from rows.

  Raises:
    InputError: there is no record of a start.
  """
  start = next((record for record in found if record['kind'] == 'start'), None)
  if start is None:
    raise InputError('no record of a start is left: it is not a journal of gptjax.benchmark')
  where, parts, facts, part = dict(start['machine']), {}, {}, None
  for record in found:
    kind, fields = record['kind'], {name: x for name, x in record.items() if name != 'kind'}
    if kind == 'device':
      where |= {'device': fields['name'] if fields['name'] != 'cpu' else where['processor']}
    elif kind == 'fact':
      facts[fields['what']] = fields['value']
    elif kind == 'part':
      part = parts[fields['name']] = {'share': fields['share'], 'seconds': None, 'error': 'cut off',
                                      'stderr': '', 'lost': {}, 'details': {}}
    elif part is not None and kind == 'end':
      part |= fields
    elif part is not None and kind == 'lost':
      part['lost'][fields['who']] = fields['why']
    elif part is not None and kind == 'details':
      part['details'] |= fields
  of_kind = lambda kind: [record for record in found if record['kind'] == kind]
  return {'benchmark': start['benchmark'], 'machine': where, 'rows': results.summarize(of_kind('figure')),
          'gates': [{name: x for name, x in gate.items() if name != 'kind'} for gate in of_kind('gate')],
          'facts': facts, 'parts': parts}


def _finite(value):
  """A JSON value in which NaN and infinities are strings: JSON has no numbers for them."""
  if isinstance(value, dict):
    return {str(name): _finite(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def journal_path(out):
  """The journal's path beside a JSON file: 'gpu.jsonl' for 'gpu.json'."""
  return str(Path(out).with_suffix('.jsonl'))
