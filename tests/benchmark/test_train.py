"""The training benchmark: its targets on a CPU."""

import json

import pytest
from conftest import ROOT

from gptjax.benchmark import results, sizes
from gptjax.benchmark.subjects import train
from gptjax.errors import InputError


@pytest.mark.parametrize('device, what, holds', [
  ('cpu', 'training cpu, float32', [False, True]),
  ('cpu', 'training cpu, bfloat16', []),
  ('cpu', 'training cpu, float32, model.dropout=0.1', []),
  ('NVIDIA H200', 'training cpu, float32', [])])
def test_targets_of_peers_are_those_of_a_cpu_in_float32(device, what, holds):
  rows = [results.row(what, 'gptjax', 'tokens/s', [115]), results.row(what, 'torch', 'tokens/s', [100], 1.15),
          results.row(what, 'torch-compile', 'tokens/s', [110], 1.05),
          results.row(what, 'transformers', 'tokens/s', [50], 2.3)]
  assert [gate['holds'] for gate in train.make_gates(rows, device)] == holds


@pytest.mark.parametrize('changes', [{'model.n_layer': 'x'}, {'model': 3}, {'model.nope': 3}, {'nope.x': 3}])
def test_a_wrong_value_of_set_is_one_line(changes):
  with pytest.raises(InputError, match=r'^config\.(model|nope)') as caught:
    sizes.make_config('tiny', changes=changes)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


def test_stored_results_have_the_gates_of_their_rows():
  paths = list((ROOT / 'docs' / 'benchmarks').glob('train*.json'))
  assert paths
  for path in paths:
    found = json.loads(path.read_text())
    device = 'cpu' if found['machine']['device'] == found['machine']['processor'] else 'gpu'
    assert found['gates'] == train.make_gates(found['rows'], device), path
