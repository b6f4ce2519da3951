"""The tables of speeds and of missed targets, from result files: python -m gptjax.benchmark table

`python -m gptjax.benchmark table docs/benchmarks/*.json` prints them. With --into=FILE they are written into
that file, between two markers; ours is in docs/explanation/speed_measurement.md. The command also reads the
journal of a `gpu` run that was cut off or is in progress, like gpu.jsonl; --json=gpu.json converts one
journal to a result file.
"""

import argparse
from pathlib import Path

from gptjax.benchmark import gates, journal, limits, results
from gptjax.benchmark.results import format_number
from gptjax.command import run
from gptjax.errors import InputError
from gptjax.storage.files import atomic, bounded, paths
from gptjax.text import markdown

BEGIN = ('<!-- made by: python -m gptjax.benchmark table docs/benchmarks/*.json '
         '--into=docs/explanation/speed_measurement.md -->')
END = '<!-- end of the table -->'
COLUMNS = 'measured', 'with', 'median (min to max)', 'gptjax speedup', 'share of the limit', 'machine', 'date'
MISSED = 'target that was missed', 'found', 'wanted', 'machine', 'date'


def format_machine(machine):
  """The device of a machine, with the version of the main package."""
  versions = machine['versions']
  package = next((name for name in ('jax', 'tiktoken', 'numpy') if name in versions), 'gptjax')
  device = machine['device']
  if device == machine['processor']:
    device = f'{machine["cores"]} core{"s" * (machine["cores"] > 1)}, {device.replace("(R)", "")}'
  return f'{device}; {package} {versions[package]}'


def load_results(path):
  """The content of a result file, or of a journal in the same form."""
  if Path(path).suffix != '.jsonl':
    return bounded.parse(Path(path).read_text())
  if not Path(path).exists():
    raise FileNotFoundError(path)
  return gates.add_gates(journal.to_results(journal.read(path)))


def table_rows(path):
  """(the cells of each row of a result file, those of each gate that does not hold).

  Raises:
    InputError: the file is neither a result file nor a journal.
  """
  try:
    loaded = load_results(path)
    where = format_machine(loaded['machine']), loaded['machine']['date']
    rows = [(row['what'], row['who'], _format_values(row), f'{row["ratio"]:.2f} x' if row['ratio'] else '',
             limits.described(row), *where) for row in loaded['rows']]
    wanted = lambda gate: markdown.Marked(f'{gate["sign"]} {gate["wanted"]:,g}')
    missed = [(gate['what'], format_number(gate['found']), wanted(gate), *where)
              for gate in loaded['gates'] if not gate['holds']]
    return rows, missed
  except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
    why = getattr(error, 'strerror', None) or f'{type(error).__name__}: {error}'
    raise InputError(f'{path} is not a result of gptjax.benchmark ({why})') from None


def _format_values(row):
  """The median of a row with its unit, and the least and the largest value of several turns."""
  values = f'{format_number(row["median"])} {row["unit"]}'
  if row['turns'] > 1:
    values += f' ({format_number(row["least"])} to {format_number(row["most"])})'
  return values


def markdown_table(paths):
  """Markdown tables, sorted by file name: each row of the files, and each target that they miss, if any."""
  found = [table_rows(path) for path in sorted(map(str, paths))]
  rows, missed = ([line for parts in found for line in parts[i]] for i in range(2))
  tables = [markdown.table(COLUMNS, rows), *([markdown.table(MISSED, missed)] if missed else [])]
  return '\n\n'.join(tables) + '\n'


def split_at_markers(text, path):
  """(text before the table, table, text after it) of a text with both markers."""
  before, begin, remainder = text.partition(f'{BEGIN}\n')
  current, end, after = remainder.partition(END)
  if not begin or not end:
    raise InputError(f'{path} has no markers for the table: add two lines to it, {BEGIN} and {END}')
  return before + begin, current, end + after


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark table', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('paths', type=paths.flag, nargs='+', metavar='JSON',
                      help='result file of another sub-command, or its journal')
  parser.add_argument('--json', type=paths.flag, default='',
                      help='result file to write from the journal, if there is exactly one')
  parser.add_argument('--into', type=paths.flag, default='',
                      help='file with the two markers; default: print the table')
  flags = parser.parse_args(argv)
  if flags.json:
    journal.journal_path(flags.json)  # it must not be the journal itself
  new_table = markdown_table(flags.paths)
  if flags.json:
    if len(flags.paths) != 1 or Path(flags.paths[0]).suffix != '.jsonl':
      parser.error('--json takes one journal, named FILE.jsonl')
    results.write(flags.json, **load_results(flags.paths[0]))
  if not flags.into:
    print(new_table, end='')
    return
  try:
    text = Path(flags.into).read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    why = getattr(error, 'strerror', None) or error
    raise InputError(f'{flags.into} cannot be read: {why}') from None
  before, _, after = split_at_markers(text, flags.into)
  atomic.write(flags.into, before + new_table + after)
