"""A journal of measurements: JSON lines, each on disk as soon as it is known, readable after a kill.

Each line is one record with its `kind`, further fields and a checksum:

  start    benchmark, machine (see `machine.machine_info`); the first record
  device   name: of the device that computes, once that is known
  part     name, share (seconds): a stage begins; the records after it belong to it
  fact     what, value
  figure   of `results.measurement`, and session: measurements of one session and turn were taken interleaved
  gate     of `results.gate`
  lost     who, why: a contender that has no further measurements
  details  any fields: further results of a sub-command
  run      digest of what it depends on, and its results: a finished run that a restart does not repeat
  end      seconds, error (None: the stage is complete), stderr (its last lines)

`to_results` converts the records to the form that `results.write` writes.
"""

import json
import math
import os
import sys
from pathlib import Path

from gptjax.benchmark import results
from gptjax.command import bars
from gptjax.errors import InputError
from gptjax.storage.files import records


class Journal:
  """Appends records to a file; syncs each to disk, then prints it as one line.

  Args:
    path: of the file, whose folder exists; '': records are neither kept nor printed.
  """

  def __init__(self, path):
    self.path = path

  def add(self, kind, **fields):
    """Append a record. Several processes may append to one file, one after the other."""
    if not self.path:
      return
    if kind == 'figure':
      fields = {**fields, 'session': os.getpid()}
    line = json.dumps(records.add_checksum(_finite({'kind': kind, **fields}))).encode() + b'\n'
    with open(self.path, 'ab+') as file:
      if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b'\n':
        line = b'\n' + line  # the last writer was killed in the middle of a line
      file.write(line)
      file.flush()
      os.fsync(file.fileno())
    if text := format_record(kind, fields):
      bars.write(text, sys.stdout)


def add_flag(parser):
  """Add the flag --journal, the path of a Journal, to a parser."""
  parser.add_argument('--journal', type=results.appended_file, default='',
                      help='file to which each measurement is appended as soon as it is known (JSON lines)')


def read(path):
  """The valid records of a file; damaged ones are reported on stderr."""
  return records.read_lines(path, lambda line: records.remove_checksum(records.parse(line)))


def once(path, digest, measure):
  """The record of a run with a digest; if the journal has none, the fields of `measure`, which are appended.

  Args:
    path: of the journal, whose folder exists; '': measure, without a record.
    digest: of all that the result depends on.
    measure: function without arguments that returns a dict.
  """
  for record in read(path) if path else ():
    if record['kind'] == 'run' and record['digest'] == digest:
      return record
  fields = {'digest': digest, **measure()}
  Journal(path).add('run', **fields)
  return fields


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


def to_results(records):
  """The arguments of `results.write`, except its path, from records: a dict.

  Its gates are those in the records; a benchmark may add gates that it computes from the rows.

  Raises:
    InputError: there is no start record.
  """
  start = next((record for record in records if record['kind'] == 'start'), None)
  if start is None:
    raise InputError('the file has no start record: it is not a journal of gptjax.benchmark')
  machine, stages, facts, stage = dict(start['machine']), {}, {}, None
  for record in records:
    kind, fields = record['kind'], {name: x for name, x in record.items() if name != 'kind'}
    if kind == 'device':
      machine |= {'device': fields['name'] if fields['name'] != 'cpu' else machine['processor']}
    elif kind == 'fact':
      facts[fields['what']] = fields['value']
    elif kind == 'part':
      stage = stages[fields['name']] = {'share': fields['share'], 'seconds': None, 'error': 'cut off',
                                        'stderr': '', 'lost': {}, 'details': {}}
    elif stage is not None and kind == 'end':
      stage |= fields
    elif stage is not None and kind == 'lost':
      stage['lost'][fields['who']] = fields['why']
    elif stage is not None and kind == 'details':
      stage['details'] |= fields
  of_kind = lambda kind: [record for record in records if record['kind'] == kind]
  return {'benchmark': start['benchmark'], 'machine': machine, 'rows': results.summarize(of_kind('figure')),
          'gates': [{name: x for name, x in gate.items() if name != 'kind'} for gate in of_kind('gate')],
          'facts': facts, 'parts': stages}


def _finite(value):
  """A JSON value in which NaN and infinities are strings, because JSON has no numbers for them."""
  if isinstance(value, dict):
    return {str(name): _finite(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def journal_path(out):
  """The path of the journal next to a result file: 'gpu.jsonl' for 'gpu.json'.

  Raises:
    InputError: the result file has the name of the journal.
  """
  path = str(Path(out).with_suffix('.jsonl'))
  if path == str(Path(out)):
    raise InputError(f'{out} is the name of the journal beside the results: give a name that ends in .json')
  return path
