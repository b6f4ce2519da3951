"""The README's table of speeds, made from what the other sub-commands wrote: python -m gptjax.benchmark table

`python -m gptjax.benchmark table docs/benchmarks/*.json` prints it; --into=README.md puts it there, between
its two marks. It also reads a journal of `gpu`, like gpu.jsonl, of a run that was cut off or is under way;
--json=gpu.json makes the usual file of one.
"""

import argparse
import json
from pathlib import Path

from gptjax.benchmark import gates, journal, results
from gptjax.benchmark.results import format_number
from gptjax.command import run
from gptjax.errors import InputError
from gptjax.files import atomic, paths

BEGIN = '<!-- made by: python -m gptjax.benchmark table docs/benchmarks/*.json --into=README.md -->'
END = '<!-- end of the table -->'
COLUMNS = 'measured', 'with', 'median (least to most)', 'gptjax is', 'where', 'when'


def format_machine(machine):
  """Where, in a few words."""
  versions = machine['versions']
  package = next((name for name in ('jax', 'tiktoken', 'numpy') if name in versions), 'gptjax')
  where = machine['device']
  if where == machine['processor']:
    where = f'{machine["cores"]} core{"s" * (machine["cores"] > 1)}, {where.replace("(R)", "")}'
  return f'{where}; {package} {versions[package]}'


def load_results(path):
  """What `results.write` wrote, or a journal in that form."""
  if Path(path).suffix != '.jsonl':
    return json.loads(Path(path).read_text())
  if not Path(path).exists():
    raise FileNotFoundError(path)
  return gates.add_gates(journal.to_results(journal.read(path)))


def table_rows(path):
  """The lines of the table that a file gives.

  Raises:
    InputError: it is neither one that `results.write` wrote nor a journal.
  """
  try:
    found = load_results(path)
    for row in found['rows']:
      figures = f'{format_number(row["median"])} {row["unit"]}'
      if row['turns'] > 1:
        figures += f' ({format_number(row["least"])} to {format_number(row["most"])})'
      yield (row['what'], row['who'], figures, f'{row["ratio"]:.2f} x' if row['ratio'] else '',
             format_machine(found['machine']), found['machine']['date'])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path} is not a result of gptjax.benchmark ({error!r})') from None


def markdown_table(paths):
  """Markdown, one line for each row of the files, in order of their names."""
  body = [line for path in sorted(map(str, paths)) for line in table_rows(path)]
  return ''.join(f'| {" | ".join(line)} |\n' for line in (COLUMNS, ('---',) * len(COLUMNS), *body))


def split_at_markers(text, path):
  """(what is before the table, the table, what is after) of a text with its marks (ValueError without)."""
  before, begin, rest = text.partition(f'{BEGIN}\n')
  inside, end, after = rest.partition(END)
  if not begin or not end:
    raise InputError(f'{path} has no place for the table: put these two lines in it: {BEGIN} {END}')
  return before + begin, inside, end + after


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark table', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('paths', type=paths.flag, nargs='+', metavar='JSON',
                      help='what --out of the others named, or the journal beside it')
  parser.add_argument('--json', type=paths.flag, default='',
                      help='writes the one journal that is given as the usual JSON file')
  parser.add_argument('--into', type=paths.flag, default='',
                      help='file with the two marks; else it is printed')
  flags = parser.parse_args(argv)
  made = markdown_table(flags.paths)
  if flags.json:
    if len(flags.paths) != 1 or Path(flags.paths[0]).suffix != '.jsonl':
      parser.error('--json takes one journal, a file of the name FILE.jsonl')
    results.write(flags.json, **load_results(flags.paths[0]))
  if not flags.into:
    print(made, end='')
    return
  try:
    text = Path(flags.into).read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{flags.into} cannot be read: {error}') from None
  before, _, after = split_at_markers(text, flags.into)
  atomic.write(flags.into, before + made + after)
