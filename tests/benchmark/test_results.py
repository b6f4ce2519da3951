"""Result files of benchmarks, the documentation's table of them, and interleaved workers."""

import json
import os
import platform
import re
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from gptjax.benchmark import interleave, journal, machine, results, table
from gptjax.benchmark.machine import machine_info
from gptjax.command import run
from gptjax.errors import InputError

KEPT = sorted((ROOT / 'docs' / 'benchmarks').glob('*.json'))


def test_the_documentation_has_the_table_of_the_files():
  page = 'docs/explanation/speed_measurement.md'
  _, held, _ = table.split_at_markers((ROOT / page).read_text(), page)
  update = f'python -m gptjax.benchmark table docs/benchmarks/*.json --into={page}'
  assert held == table.markdown_table(KEPT), update


@pytest.mark.parametrize('path', KEPT, ids=lambda path: path.stem)
def test_stored_results_record_their_origin(path):
  found = json.loads(path.read_text())
  assert found.keys() == {'benchmark', 'machine', 'rows', 'gates', 'details'}
  assert {'date', 'command', 'commit', 'code', 'device', 'flags', 'versions'} <= found['machine'].keys()
  assert found['machine']['code']
  commands = 'python -m gptjax.benchmark ', 'python -m gptjax benchmark '
  assert found['machine']['command'].startswith(commands)
  for row in found['rows']:
    assert row['least'] <= row['median'] <= row['most'] and row['turns'] >= 1


def test_a_row_a_gate_and_their_line(tmp_path):
  rows = [results.row('training', 'gptjax', 'tokens/s', [1946.4, 1830, 2003]) | {'of_products': 0.853},
          results.row('training', 'torch', 'tokens/s', [4.5655], 1.054)]
  gates = [results.gate('speed', '>=', 2, 1.9), results.gate('memory', '<=', 2, 1.9)]
  assert [gate['holds'] for gate in gates] == [False, True]
  where = machine_info(['numpy'], 'NVIDIA H100 80GB HBM3')
  results.write(str(tmp_path / 'new' / 'a.json'), 'train', where, rows, gates, more=1)
  lines = table.markdown_table([tmp_path / 'new' / 'a.json']).splitlines()
  assert lines[0].startswith('| measured | with |') and len(lines) == 8
  assert lines[2] == ('| training | gptjax | 1,946 tokens/s (1,830 to 2,003) |  | 85 % of XLA\'s matmuls | '
                      f'NVIDIA H100 80GB HBM3; numpy {where["versions"]["numpy"]} | {where["date"]} |')
  assert '| 4.566 tokens/s | 1.05 x |  |' in lines[3]
  assert not lines[4] and lines[5].startswith('| target that was missed |')
  assert lines[7].startswith('| speed | 1.900 | >= 2 | NVIDIA H100')


def test_what_grew_from_nothing_is_in_the_table(tmp_path):
  gates = [results.gate('gathered', '<=', 0.03, float('inf'))]
  rows = [results.row('x', 'y', 's', [1.0])]
  results.write(str(tmp_path / 'a.json'), 'scaling', machine_info([]), rows, gates)
  assert '| gathered | inf | <= 0.03 |' in table.markdown_table([tmp_path / 'a.json'])


def test_the_table_is_written_between_its_markers(tmp_path):
  results.write(str(tmp_path / 'a.json'), 'train', machine_info([]), [results.row('x', 'y', 's', [1.0])])
  readme = tmp_path / 'README.md'
  readme.write_text(f'above\n{table.BEGIN}\nold\n{table.END}\nbelow\n')
  table.main([str(tmp_path / 'a.json'), f'--into={readme}'])
  made = table.markdown_table([tmp_path / 'a.json'])
  assert readme.read_text() == f'above\n{table.BEGIN}\n{made}{table.END}\nbelow\n'
  readme.write_text('no marks')
  with pytest.raises(InputError, match='has no markers for the table'):
    table.main([str(tmp_path / 'a.json'), f'--into={readme}'])
  assert readme.read_text() == 'no marks'
  (tmp_path / 'a.json').write_text('{}')
  with pytest.raises(InputError, match='is not a result of gptjax'):
    table.main([str(tmp_path / 'a.json')])


@pytest.mark.parametrize('content', [
  '[' * 100_000, '{"machine": {"versions": {}, "device": 3, "processor": 3}, "rows": [], "gates": []}',
  '{"machine": [], "rows": [], "gates": []}', '{"rows": [{"median": 1' + '0' * 400 + '}]}'])
def test_a_damaged_result_file_is_named_in_one_line(content, tmp_path):
  path = tmp_path / 'a.json'
  path.write_text(content)
  with pytest.raises(InputError, match=re.escape(f'{path} is not a result of gptjax.benchmark')):
    table.main([str(path)])


def test_a_number_that_no_float_holds_is_an_error_of_the_file(tmp_path):
  path = tmp_path / 'a.json'
  huge = results.row('x', 'y', 's', [1.0]) | {'median': 10 ** 400}
  results.write(str(path), 'train', machine_info([]), [huge])
  with pytest.raises(InputError, match='is not a result of gptjax'):
    table.main([str(path)])


@pytest.mark.parametrize('flag', ['--out', '--journal'])
def test_a_result_that_cannot_be_written_is_refused_before_anything_is_measured(flag, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  os.mkfifo('pipe')
  parser = run.Parser(prog='test')
  results.add_out(parser)
  journal.add_flag(parser)
  for wrong, why in (('folder', 'is not a regular file'), ('pipe', 'is not a regular file'),
                     ('file/a.json', 'cannot be made: File exists'), ('/proc/x/a.json', 'cannot be made')):
    with pytest.raises(InputError, match=f'argument {flag}: .*{why}'):
      parser.parse_args([f'{flag}={wrong}'])
  with pytest.raises(InputError, match='cannot be made: File name too long'):
    parser.parse_args([f'{flag}={"a" * 300}'])
  good = parser.parse_args([f'{flag}=new/a.json'])
  assert str(tmp_path / 'new' / 'a.json') in (good.out, good.journal) and (tmp_path / 'new').is_dir()
  assert parser.parse_args([f'{flag}=']).out == ''


@pytest.mark.ci
@pytest.mark.parametrize('computing', [False, True])
def test_a_worker_ends_with_the_process_that_measures(computing):
  flags = ['train', '--size=tiny', '--share=0.5', '--worker=gptjax']
  command = [sys.executable, '-m', 'gptjax.benchmark', *flags]
  # Its stdin closes, as when the other process is killed: while it starts, or in the middle of an answer.
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
    if computing:
      assert worker.stdout.readline()
      worker.stdin.write(b'1000000000\n')  # steps
    worker.stdin.close()
    assert worker.wait() == -signal.SIGKILL


def test_a_command_with_one_result_ends_with_the_process_that_waits_for_it():
  begin = 'import os, sys, time; from gptjax.benchmark.interleave import end_with_parent, output_of; '
  child = begin + 'end_with_parent(lambda: os._exit(9)); os.write(2, b"ready\\n"); time.sleep(600)'
  parent = begin + f'output_of([sys.executable, "-c", {child!r}])'
  with subprocess.Popen([sys.executable, '-c', parent], stderr=subprocess.PIPE) as waiting:
    assert waiting.stderr.readline() == b'ready\n'
    waiting.kill()
    waiting.communicate(timeout=60)  # until the child, which has the same stderr, has ended


WORKER = """
import os, sys, time
from gptjax.benchmark.interleave import serve
turns, ends = iter(range(100)), sys.argv[1]
def answer(question):
  turn = next(turns)
  if ends == str(turn):
    sys.exit(1)
  if ends == f'hangs {turn}':
    time.sleep(999)
  print('what a library prints is no answer')
  os.system('echo nor is this')
  return [question, turn]
serve({}, answer)
"""


def workers(**ends):
  return {name: [sys.executable, '-c', WORKER, str(end)] for name, end in ends.items()}


@pytest.mark.parametrize('order', [('good', 'bad'), ('bad', 'good')])
@pytest.mark.parametrize('at', [0, 2])
def test_a_contender_that_exits_early_is_skipped(order, at):
  commands = workers(**{name: {'good': '', 'bad': at}[name] for name in order})
  lost, told = [], []
  found = interleave.interleaved(commands, 'q', 3, lambda *x: lost.append(x), lambda *x: told.append(x))
  assert lost == [('bad', 'exited early')] and found == {'good': ({}, [['q', 1], ['q', 2], ['q', 3]])}
  turns_of = lambda wanted: [turn for name, _, _, turn in told if name == wanted]
  assert turns_of('good') == [0, 1, 2, 3] and turns_of('bad') == [*range(at)]
  with pytest.raises(InputError, match='the contender bad exited early'):
    interleave.interleaved(commands, 'q', 3)


def test_contenders_start_one_after_the_other_and_are_then_interleaved(monkeypatch):
  events = []

  class Recorded(interleave.Worker):
    def __init__(self, command):
      events.append(('start', command[-1]))
      self.name = command[-1]
      super().__init__(command)

    def request(self, line, until):
      events.append(('ask' if line else 'facts', self.name))
      return super().request(line, until)

  monkeypatch.setattr(interleave, 'Worker', Recorded)
  interleave.interleaved(workers(a='a', b='b'), 'q', 2)
  each = lambda kind: [(kind, 'a'), (kind, 'b')]
  assert events == [*[(kind, name) for name in 'ab' for kind in ('start', 'facts', 'ask')], *each('ask') * 2]


class Clocked:
  """A worker of a clock that only workers move; its command is the seconds of its start and of an answer."""
  now = 0.0

  def __init__(self, command):
    self.start_s, self.answer_s = command

  def request(self, line, until):
    end = Clocked.now + (self.answer_s if line else self.start_s)
    Clocked.now = min(end, until)
    if end > until:
      raise interleave.WorkerLost('did not answer in time')
    return {}

  def close(self):
    pass


@pytest.mark.parametrize('commands, limit_s, counted, lost', [
  ({'a': (10, 10), 'b': (10, 10)}, 100, {'a': 3, 'b': 3}, []),  # 40 s to start, 20 a turn
  ({'a': (10, 10), 'b': (10, 10)}, 99, {'a': 2, 'b': 2}, []),
  # One that takes too long leaves time in which the others are measured; it holds up none after that time.
  ({'a': (10, 5), 'b': (90, 5), 'c': (1, 1)}, 100, {'a': 6}, [
    ('b', 'did not answer in time'), ('c', 'was not started: the limit of 100 s is too short')]),
  ({'a': (90, 5), 'b': (1, 1)}, 100, {'a': 1}, [('b', 'was not started: the limit of 100 s is too short')]),
  ({'a': (200, 5)}, 100, {}, [('a', 'did not answer in time')])])
def test_contenders_without_time_are_skipped(monkeypatch, commands, limit_s, counted, lost):
  monkeypatch.setattr(interleave, 'Worker', Clocked)
  monkeypatch.setattr(interleave.time, 'monotonic', lambda: Clocked.now)
  monkeypatch.setattr(Clocked, 'now', 0.0)
  missed = []
  found = interleave.interleaved(commands, 'q', 9, lambda *why: missed.append(why), limit_s=limit_s)
  assert {name: len(answers) for name, (_, answers) in found.items()} == counted and missed == lost


@pytest.mark.parametrize('info, found', [
  ('cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\ncpu family\t: 25\n',
   'AMD EPYC (family 25, model 17)'),
  ('cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz\n',
   'Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz'),
  ('cpu family\t: 6\nmodel\t\t: 79\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n',
   'Intel(R) Xeon(R) CPU @ 2.20GHz (family 6, model 79)'),
  ('BogoMIPS\t: 243.75\nFeatures\t: fp asimd\n', platform.processor() or platform.machine())])
def test_a_processor_has_family_and_model_unless_its_name_has_a_number(info, found, tmp_path):
  (tmp_path / 'cpuinfo').write_text(info)
  assert machine._processor(tmp_path / 'cpuinfo') == found
