"""The simulation of many hosts: the coordinator is real, and the traffic of a process does not grow."""

import json

import pytest

from gptjax.benchmark import hosts
from gptjax.parallel import control, processes, rendezvous

HOSTNAME = rendezvous._hostname  # before the simulation


@pytest.fixture(scope='module')
def found():
  """{number of processes: {what: (seconds, requests, characters)}}"""
  return {n: {what: figures for what, *figures in hosts.measurements(n)} for n in (4, 24)}


@pytest.mark.parametrize('what', ['rendezvous', 'barrier', 'comparison of the config', 'agreement to stop'])
def test_what_a_process_sends_and_receives_does_not_grow_with_their_number(found, what):
  (_, few, small), (_, many, large) = (found[n][what] for n in (4, 24))
  assert small > 0 and many < 3 * max(few, 1) and large < 2 * small + 200


@pytest.mark.slow
def test_checkpoints_and_metrics_of_several_hosts_are_measured():
  costs = hosts.storage_costs(2)
  assert len(costs) == len(hosts.SAVED) and min(costs) > 0


def test_nothing_of_the_simulation_remains(found):
  assert control.hosts == [] and not processes.is_multiprocess()
  assert rendezvous._hostname is HOSTNAME


def test_a_process_that_is_missing_is_named_to_all_others():
  found, everyone = {}, range(4)
  with hosts.Simulation(4) as simulation:
    simulation.measure(lambda i: simulation.state.client.connect())
    collect = lambda i, folder, limit: found.update({i: control.collect(folder, str(i), limit, everyone)})
    simulation.measure(lambda i: None if i == 2 else collect(i, 'gptjax/at/here/', 0.5))
    assert {i: absent for i, (absent, _) in found.items()} == {i: [2] for i in (0, 1, 3)}
    simulation.measure(lambda i: collect(i, 'gptjax/at/there/', 30))
    assert all(texts == {i: str(i) for i in everyone} for _, texts in found.values())


def test_processes_that_call_the_roll_at_the_same_time_share_the_answer():
  """Processes 0 and 1 call, 2 answers, and 3 is dead."""
  found = {}
  def work(i):
    if i < 3:
      control.client().key_value_set(f'{control.PRESENT}all-0/{i}', '')
    if i < 2:
      found[i] = control._share_roll(1.0)
  with hosts.Simulation(4) as simulation:
    simulation.measure(lambda i: simulation.state.client.connect())
    simulation.measure(work)
    requests = [counter.requests for counter in simulation.counters[:2]]
  assert found == {0: [3], 1: [3]} and min(requests) == 4 < max(requests)  # one of them waits


@pytest.mark.slow
def test_the_command_prints_and_writes_what_it_measured(tmp_path, capsys):
  assert hosts.main(['--processes=2,4', f'--out={tmp_path}/hosts.json']) == 0
  assert capsys.readouterr().out.count('barrier') == 3  # twice in the table, once as a target
  rows = json.loads((tmp_path / 'hosts.json').read_text())['rows']
  assert {row['who'] for row in rows} == {'2 processes', '4 processes'} and len(rows) == 10
