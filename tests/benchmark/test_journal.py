"""The journal of a benchmark is complete on disk after each record, and after a kill at any moment."""

import json
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.benchmark import gates, gpu, journal, results, table
from gptjax.errors import InputError

MACHINE = {'date': '2026-01-01', 'device': 'some CPU', 'processor': 'some CPU', 'cores': 2,
           'versions': {'jax': '0'}}

# Appends figures, and is killed at each change of a file in turn; prints what then is there.
KILLED = f'''
import contextlib, itertools, json, os, shutil, sys
from pathlib import Path
import killing
from gptjax.benchmark import gpu, journal, results, table
folder, done = Path(sys.argv[1]) / 'results', Path(sys.argv[1]) / 'done'
path, out = folder / 'gpu.jsonl', folder / 'gpu.json'

def work():
  kept, write = journal.Journal(str(path)), gpu.ResultsFile(str(path), str(out))
  with contextlib.redirect_stdout(None):
    kept.add('start', benchmark='gpu', machine={MACHINE!r})
    kept.add('part', name='train', share=9.0)
    for turn in range(3):
      kept.add('figure', **results.measurement('training', 'gptjax', 'tokens/s', 10.0 + turn, turn))
      os.write(measured, b'1')
      write()

for n in itertools.count(1):
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  measured = os.open(done, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
  killed = killing.forked(work, f'{{folder}}/*', n)
  records = journal.read(path)
  usual = json.loads(out.read_text())['rows'] if out.exists() else []
  lines = table.table_rows(path)[0] if records else []
  print(json.dumps([killed, os.path.getsize(done), [x['kind'] for x in records].count('figure'),
                    [row['turns'] for row in usual], len(lines)]))
  if not killed:
    break
'''


def test_a_kill_at_any_change_of_a_file_leaves_all_that_was_measured(tmp_path):
  done = subprocess.run([sys.executable, '-c', KILLED, tmp_path], cwd=ROOT, text=True, capture_output=True,
                        env={**ENVIRONMENT, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}'})
  assert done.returncode == 0, done.stderr
  states = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(states) > 20 and not states[-1][0]
  for _, measured, kept, turns, lines in states:
    assert measured <= kept <= measured + 1  # the last one was written, and then came the kill
    assert lines == (kept > 0) and turns in ([], [1], [2])
  assert states[-1][1:] == [3, 3, [2], 1]


def write(path, *kinds):
  kept = journal.Journal(str(path))
  for kind, fields in kinds:
    kept.add(kind, **fields)


START = 'start', {'benchmark': 'gpu', 'machine': MACHINE}


def test_a_record_after_half_a_line_is_whole(tmp_path):
  path = tmp_path / 'a.jsonl'
  write(path, START, ('fact', {'what': 'x', 'value': 1}))
  whole = path.read_bytes()
  for cut in range(whole.index(b'\n') + 1, len(whole)):
    path.write_bytes(whole[:cut])
    write(path, ('fact', {'what': 'y', 'value': 2}))
    facts = journal.to_results(journal.read(path))['facts']
    assert facts == ({'x': 1, 'y': 2} if cut == len(whole) - 1 else {'y': 2})


def test_results_are_made_from_the_records(tmp_path, capsys):
  path = tmp_path / 'gpu.jsonl'
  def figure(who, value, turn, **more):
    return 'figure', results.measurement('training 124M, bfloat16', who, 'tokens/s', value, turn, **more)
  write(path, START, ('fact', {'what': 'ptxas', 'value': 'absent'}), ('part', {'name': 'train', 'share': 9}),
        ('device', {'name': 'NVIDIA H200'}), figure('gptjax', 1.0, 0), figure('torch', 5.0, 0),
        figure('gptjax', 400e3, 1), figure('torch', 200e3, 1), figure('gptjax', 500e3, 2),
        figure('torch', 100e3, 2, memory=7), ('lost', {'who': 'torch', 'why': 'ended early'}),
        ('details', {'steps': 10, 'loss': float('nan')}))
  said = capsys.readouterr().out
  assert 'training 124M, bfloat16, gptjax, turn 1: 400,000 tokens/s\n' in said and 'torch ended early' in said
  made = table.load_results(path)
  ours, theirs = made['rows']
  assert (ours['median'], ours['turns'], ours['ratio']) == (450e3, 2, None)
  assert (theirs['ratio'], theirs['memory']) == (3.5, 7)
  assert made['machine']['device'] == 'NVIDIA H200' and made['facts'] == {'ptxas': 'absent'}
  assert made['parts']['train'] == {'share': 9, 'seconds': None, 'error': 'cut off', 'stderr': '',
                                    'lost': {'torch': 'ended early'}, 'details': {'steps': 10, 'loss': 'nan'}}
  assert [gate['what'] for gate in made['gates']] == ['124M, tokens/s', '124M, times as fast as torch']
  table.main([str(path), f'--json={tmp_path / "gpu.json"}'])
  assert json.loads((tmp_path / 'gpu.json').read_text())['rows'] == made['rows']
  assert table.markdown_table([tmp_path / 'gpu.json']) == table.markdown_table([path])
  assert table.markdown_table([path]) == capsys.readouterr().out
  with pytest.raises(InputError, match='takes one journal'):
    table.main([str(tmp_path / 'gpu.json'), f'--json={tmp_path / "x.json"}'])


def test_only_turns_of_one_session_are_compared():
  def of(who, value, session):
    return {**results.measurement('training', who, 'tokens/s', value, 1), 'session': session}
  ratio = lambda *figures: [row['ratio'] for row in results.summarize(figures)]
  assert ratio(of('gptjax', 6.0, 1), of('torch', 2.0, 1)) == [None, 3.0]
  assert ratio(of('gptjax', 6.0, 1), of('torch', 2.0, 2)) == [None, None]


@pytest.mark.parametrize('content', ['', '{}\n', 'x\n', None])
def test_other_files_are_refused(tmp_path, content):
  path = tmp_path / 'a.jsonl'
  if content is not None:
    path.write_text(content)
  with pytest.raises(InputError, match='is not a result of gptjax'):
    table.main([str(path)])


def rows_at(size, ours=None, **others):
  """Rows of training: our speed, and of others (speed, ratio)."""
  speeds = {'gptjax': (ours, None)} if ours else {}
  return [{'what': f'training {size}, bfloat16', 'who': who, 'median': speed, 'ratio': ratio}
          for who, (speed, ratio) in {**speeds, **others}.items()]


H200 = 'NVIDIA H200'


@pytest.mark.parametrize('device, rows, found', [
  ('NVIDIA H100 80GB HBM3', rows_at('124M', 310e3, transformers=(300e3, 1.02), torch=(1e3, 310)),
   {'124M, tokens/s': (310e3, 300e3, 468e3, True, False),
    '124M, times as fast as transformers': (1.02, 1, None)}),
  (H200, rows_at('124M', 500e3), {'124M, tokens/s': (500e3, 300e3, 468e3, True, True)}),
  (H200, rows_at('355M', 100e3), {'355M, tokens/s': (100e3, 110e3, 175e3, False, False)}),
  (H200, rows_at('774M', 60e3), {'774M, tokens/s': (60e3, 55e3, 79e3, True, False)}),
  (H200, rows_at('1558M', 20e3, torch=(40e3, None)),
   {'1558M, tokens/s': (20e3, 29e3, 47e3, False, False),
    '1558M, times as fast as torch, not interleaved': (0.5, 1, None)}),
  ('some other GPU', rows_at('124M', 310e3, torch=(1e3, 2.0)),
   {'124M, times as fast as torch': (2.0, 1, None)}),
  (H200, rows_at('124M', torch=(1e3, None)), {})])
def test_gates_of_training(device, rows, found):
  made = gates.training_gates(rows, device)
  shown = {gate['what']: (gate['found'], gate['wanted'], gate.get('aim'),
                          *([gate['holds'], gate['reached']] if 'aim' in gate else [])) for gate in made}
  assert shown == found
  assert not any(gate['holds'] for gate in made if gate['found'] < gate['wanted'])


@pytest.mark.parametrize('ours, holds', [(1.25, True), (1.3, False)])
def test_dropout_in_attention_may_cost_a_fifth_of_cudnns_speed(ours, holds):
  row = lambda who, ms: {'what': 'attention 124M, forward and backward', 'who': who, 'median': ms}
  gate, = gates.attention_gates([row('xla', 9.0), row(gates.CUDNN, 1.0), row(gates.PALLAS, ours)])
  assert gate['holds'] == holds
  assert gates.attention_gates([row('xla', 9.0), row(gates.PALLAS, ours)]) == []


def test_sizes_that_were_not_measured_are_listed(capsys):
  found = {'machine': {'device': 'NVIDIA H200'}, 'gates': [], 'rows': rows_at('124M', 310e3)}
  gates.print_gates(gates.add_gates(found))
  first, *rest = capsys.readouterr().out.splitlines()
  assert first.startswith('124M, tokens/s') and first.endswith('goal 468,000   target met')
  assert [line.partition(',')[0] for line in rest] == ['355M', '774M', '1558M']


def test_the_journal_is_not_the_file_of_the_results():
  assert journal.journal_path('a/gpu.json') == 'a/gpu.jsonl' == journal.journal_path('a/gpu')
  with pytest.raises(InputError, match='is the name of the journal'):
    journal.journal_path('a/gpu.jsonl')


@pytest.mark.parametrize('main, flags', [
  (gpu.main, ['--out=x.jsonl']), (table.main, ['a.jsonl', '--json=a.jsonl'])])
def test_commands_keep_the_two_apart(main, flags, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'a.jsonl').write_text('{"kind": "start", "benchmark": "gpu", "machine": {}}\n')
  with pytest.raises(InputError, match='is the name of the journal'):
    main(flags)
  assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']
