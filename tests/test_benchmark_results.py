"""What benchmarks leave behind: one form; the README's table is what the files of docs/benchmarks say."""

import json
import sys
from pathlib import Path

import pytest

from gptjax.benchmark import results, table, turns
from gptjax.benchmark.machine import machine
from gptjax.errors import InputError

ROOT = Path(__file__).parents[1]
KEPT = sorted((ROOT / 'docs' / 'benchmarks').glob('*.json'))


def test_the_readme_holds_the_table_of_the_files():
  _, held, _ = table.parted((ROOT / 'README.md').read_text(), 'README.md')
  assert held == table.table(KEPT), 'python -m gptjax.benchmark table docs/benchmarks/*.json --into=README.md'


@pytest.mark.parametrize('path', KEPT, ids=lambda path: path.stem)
def test_a_file_that_is_kept_says_where_it_comes_from(path):
  found = json.loads(path.read_text())
  assert found.keys() == {'benchmark', 'machine', 'rows', 'gates', 'details'}
  assert {'date', 'command', 'commit', 'code', 'device', 'flags', 'versions'} <= found['machine'].keys()
  assert found['machine']['code'] and found['machine']['command'].startswith('python -m gptjax.benchmark')
  for row in found['rows']:
    assert row['least'] <= row['median'] <= row['most'] and row['turns'] >= 1


def test_a_row_a_gate_and_their_line(tmp_path):
  rows = [results.row('training', 'gptjax', 'tokens/s', [1946.4, 1830, 2003]),
          results.row('training', 'torch', 'tokens/s', [4.5655], 1.054)]
  gates = [results.gate('speed', '>=', 2, 1.9), results.gate('memory', '<=', 2, 1.9)]
  assert [gate['holds'] for gate in gates] == [False, True]
  where = machine(['numpy'], 'NVIDIA H100 80GB HBM3')
  results.write(str(tmp_path / 'new' / 'a.json'), 'train', where, rows, gates, more=1)
  lines = table.table([tmp_path / 'new' / 'a.json']).splitlines()
  assert lines[0].startswith('| measured | with |') and len(lines) == 4
  assert lines[2] == ('| training | gptjax | 1,946 tokens/s (1,830 to 2,003) |  | NVIDIA H100 80GB HBM3; '
                      f'numpy {where["versions"]["numpy"]} | {where["date"]} |')
  assert '| 4.566 tokens/s | 1.05 x |' in lines[3]


def test_the_table_goes_between_its_marks(tmp_path):
  results.write(str(tmp_path / 'a.json'), 'train', machine([]), [results.row('x', 'y', 's', [1.0])])
  readme = tmp_path / 'README.md'
  readme.write_text(f'above\n{table.BEGIN}\nold\n{table.END}\nbelow\n')
  table.main([str(tmp_path / 'a.json'), f'--into={readme}'])
  made = table.table([tmp_path / 'a.json'])
  assert readme.read_text() == f'above\n{table.BEGIN}\n{made}{table.END}\nbelow\n'
  readme.write_text('no marks')
  with pytest.raises(InputError, match='has no place for the table'):
    table.main([str(tmp_path / 'a.json'), f'--into={readme}'])
  assert readme.read_text() == 'no marks'
  (tmp_path / 'a.json').write_text('{}')
  with pytest.raises(InputError, match='is not a result of gptjax'):
    table.main([str(tmp_path / 'a.json')])


WORKER = """
import sys
from gptjax.benchmark.turns import serve
turns = iter(range(100))
def answer(question):
  turn = next(turns)
  if turn == int(sys.argv[1]):
    sys.exit(1)
  return [question, turn]
serve({}, answer)
"""


@pytest.mark.parametrize('order', [('good', 'bad'), ('bad', 'good')])
@pytest.mark.parametrize('at', [0, 2])
def test_a_contender_that_ends_early_is_left_out(order, at):
  ends = {'good': 99, 'bad': at}
  commands = {name: [sys.executable, '-c', WORKER, str(ends[name])] for name in order}
  lost = []
  found = turns.by_turns(commands, 'q', 3, lost.append)
  assert lost == ['bad'] and found == {'good': ({}, [['q', 1], ['q', 2], ['q', 3]])}
  with pytest.raises(ValueError, match='the contender bad ended early'):
    turns.by_turns(commands, 'q', 3)
