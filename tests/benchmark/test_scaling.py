"""The scaling benchmark: constant quantities are reported as flat, and growth is reported."""

import concurrent.futures
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gptjax.benchmark.subjects import scaling
from gptjax.errors import InputError
from gptjax.plan import hlo


@pytest.fixture
def small(monkeypatch):
  tiny = dict(n_layer=1, n_head=2, n_embd=32, n_ctx=16, n_vocab=64, scan=True)
  monkeypatch.setattr(scaling, 'CPU_MODEL', tiny)
  return {family.name: family for family in scaling.FAMILIES}


@pytest.mark.slow
def test_on_cpu_devices_work_stays_the_same_and_a_divided_state_is_sharded(small, tmp_path, capsys):
  families = {small['cpu-data']: (1, 4), small['cpu-fsdp']: (2, 4)}
  with concurrent.futures.ThreadPoolExecutor(1) as thread:  # where no other test has set a mesh
    assert thread.submit(scaling.measure, families, str(tmp_path / 'scaling.json')).result() == 0
  said = capsys.readouterr().out
  assert 'NOT FLAT' not in said and 'grows as expected' in said and 'stragglers' in said
  rows = json.loads((tmp_path / 'scaling.json').read_text())['details']['families']
  assert rows['cpu-data'][0]['state'] == rows['cpu-data'][1]['state'] > rows['cpu-fsdp'][1]['state']
  assert rows['cpu-data'][1]['sent'].keys() == {'all-reduce'}
  assert (tmp_path / 'scaling.png').stat().st_size > 10_000


@pytest.mark.ci
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_compiles(number):
  # It unwound once, and Python's end met the threads of the compiler: a segmentation fault.
  command = [sys.executable, '-m', 'gptjax.benchmark', 'scaling', '--families=cpu-fsdp', '--tpu=']
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
    time.sleep(8)
    process.send_signal(number)
    assert process.stderr.read().count('stopped') == 1
    assert process.wait() == 128 + number


@pytest.mark.parametrize('flags', [['--families=cpu-fsdp', '--cpu='], ['--families=tpu-fsdp', '--tpu=']])
def test_nothing_to_measure_is_an_error(flags):
  with pytest.raises(InputError, match='there is nothing to measure'):
    scaling.main(flags)


def test_a_row_is_computed_once_for_each_version_of_the_code(small, tmp_path, monkeypatch):
  computed, out, code = [], tmp_path / 'new' / 'scaling.json', ['first']

  def computed_row(family, n):
    if len(computed) == 2 and code == ['first']:
      raise KeyboardInterrupt
    computed.append(n)
    ones = dict.fromkeys(('flops', 'state', 'whole', 'peak', 'compile_seconds'), 1)
    return {'devices': n, 'mesh': {'data': n}, **ones,
            **{kind: {'all-reduce': 1} for kind in ('arrays', 'sent', 'collectives')}}

  facts = lambda packages: {'code': code[0], 'processor': 'x', 'versions': {}, 'flags': {}}
  monkeypatch.setattr(scaling, 'measure_row', computed_row)
  monkeypatch.setattr(scaling, 'machine_info', facts)
  families = {small['tpu-data']: (8, 64, 512)}
  with pytest.raises(KeyboardInterrupt):
    scaling.measure(families, str(out))
  assert not out.exists()
  with open(out.with_suffix('.jsonl'), 'a') as file:
    file.write('{"kind": "run", "dig')  # a kill in the middle of a line
  computed.clear()
  assert scaling.measure(families, str(out)) == 0
  assert computed == [512]
  rows = json.loads(out.read_text())['details']['families']['tpu-data']
  assert [row['devices'] for row in rows] == [8, 64, 512]
  code[0] = 'second'
  assert scaling.measure(families, str(out)) == 0 and computed == [512, 8, 64, 512]


def test_growth_is_detected(small):
  rows = [{'devices': n, 'mesh': {'data': n}, 'flops': 100, 'state': 10, 'peak': 50 + n, 'whole': 0,
           'arrays': {'all-reduce': 8}, 'collectives': {'all-reduce': n // 8}} for n in (8, 16)]
  assert scaling.relative_changes(rows, small['tpu-data']) == pytest.approx(
    {'flops': 0, 'state': 0, 'peak': 8 / 58, 'collectives per step': 1,
     'arrays of all-reduce and reduce-scatter': 0})
  one_axis_less = {**rows[0], 'mesh': {'data': 1}, 'arrays': {}, 'collectives': {}}
  found = scaling.relative_changes([one_axis_less, *rows], small['tpu-data'])
  assert found['arrays of all-reduce and reduce-scatter'] == 0
  alone = scaling.relative_changes([one_axis_less, rows[0]], small['tpu-data'])
  assert alone.keys() == {'flops', 'state', 'peak'}
  assert scaling.relative_changes(rows, small['cpu-fsdp'])['divided state x devices'] == pytest.approx(1)


@pytest.mark.parametrize('chips, shape', [(8, '2x2x2'), (16, '2x2x4'), (64, '4x4x4'), (1024, '8x8x16')])
def test_slices_are_near_to_cubes(chips, shape):
  assert scaling.slice_topology(chips) == shape


def test_slices_are_the_axis_replica_of_their_topology(small):
  family = small['tpu-slices']
  assert [scaling.topology_name(family, n) for n in (64, 128, 512)] == [
    'v5p:4x4x4', 'v5p:4x4x4x2', 'v5p:4x4x4x8']
  for n in (64, 512):
    mesh = scaling.weak_scaling_config(family, n).mesh
    assert (mesh.replica, mesh.data * mesh.fsdp * mesh.tensor) == (n // 64, 64)


def test_what_slices_send_each_other_counts_as_within_one():
  groups = np.arange(8).reshape(2, 4)
  for kind, share in (('all-reduce', 2 * 3 / 4), ('all-gather', 3 / 4), ('reduce-scatter', 3)):
    within = hlo.Collective(kind, [100], groups, 2, 0)
    between = within._replace(between_slices=True)
    assert hlo.by_kind([within, between], hlo.sent_bytes) == {
      kind: 200 * share, f'{kind} between slices': 200 * share}
    assert len({*hlo.by_kind([within, between], hlo.full_bytes).values()}) == 1


def test_invalid_flags_are_refused():
  for flags, said in ((['--tpu=4'], 'smallest slice'), (['--cpu=3'], 'powers of two'),
                      (['--families=cpu'], 'unknown family')):
    with pytest.raises(InputError, match=said):
      scaling.main(flags)
