"""The benchmark of a GPU, for real on a CPU at a tiny size; and what it says of figures and of failures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from conftest import ENVIRONMENT

from gptjax.benchmark import gpu, profile, results, train, variants
from gptjax.errors import InputError

ROOT = Path(__file__).parents[1]
# What a machine lent for an hour may not have.
ABSENT = ('tensorflow', 'tensorflow_datasets', 'clu', 'ml_collections', 'tensorboard', 'tqdm', 'matplotlib')


@pytest.mark.slow
def test_it_measures_all_on_a_machine_with_little_installed(tmp_path):
  for name in ABSENT:
    (tmp_path / f'{name}.py').write_text('raise ImportError("not here")')
  paths = os.pathsep.join([str(tmp_path), str(ROOT)])
  out = tmp_path / 'gpu.json'
  done = subprocess.run([sys.executable, '-m', 'gptjax.benchmark', 'gpu', '--sizes=tiny', f'--out={out}'],
                        cwd=ROOT, env={**ENVIRONMENT, 'PYTHONPATH': paths}, text=True, capture_output=True)
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads(out.read_text())
  parts = found['details']['parts']
  assert list(parts) == ['check', 'train tiny gptjax,torch', 'profile', 'variants']
  assert not any(part['error'] for part in parts.values())
  rows = {(row['what'], row['who']): row for row in found['rows']}
  assert rows.keys() == {('training tiny, float32', 'gptjax'), ('training tiny, float32', 'torch'),
                         ('training tiny, float32, as it is', 'gptjax')}
  assert rows['training tiny, float32', 'torch']['ratio'] > 0
  assert [gate['what'] for gate in found['gates']][-1] == 'tiny, times as fast as torch'
  check = parts['check']['details']
  assert 'cudnn' in check['failed'] and check['errors']['xla'][1] < 0.05
  times = parts['profile']['details']['parts']
  assert {'attention', 'projections', 'norms', 'loss', 'optimizer', 'embedding'} <= times.keys()
  assert all(seconds > 0 for seconds in times.values())



def test_what_fails_or_takes_too_long_is_recorded_and_the_run_goes_on(tmp_path, capsys):
  too_long = gpu.Part('too long', ['check', '--size=tiny'], 1)
  wrong = gpu.Part('wrong', ['train', '--size=none'], 30)
  out = tmp_path / 'gpu.json'
  assert gpu.measure([wrong, too_long], 60, str(out)) == 1
  parts = json.loads(out.read_text())['details']['parts']
  assert parts['wrong']['error'] == 'exit code 2' and 'invalid choice' in parts['wrong']['stderr']
  assert parts['too long']['error'] == 'cut off after 1 s'
  assert gpu.measure([wrong], gpu.LEAST - 1, str(out)) == 1
  assert json.loads(out.read_text())['details']['parts']['wrong']['error'] == 'left out: no time'
  assert 'invalid choice' in capsys.readouterr().out


def test_gates_are_those_of_an_h100_and_of_the_fastest_peer():
  row = lambda size, who, speed, ratio: results.row(f'training {size}, bfloat16', who, 'tokens/s', [speed],
                                                    ratio)
  rows = [row('124M', 'gptjax', 310e3, None), row('124M', 'torch-compile', 300e3, 1.02),
          row('124M', 'transformers-compile', 200e3, 1.5), row('1558M', 'gptjax', 20e3, None),
          row('1558M', 'torch-compile', 40e3, None), row('355M', 'torch-compile', 40e3, None)]
  found = {gate['what']: (gate['found'], gate['holds']) for gate in gpu.gates(rows, 'NVIDIA H100 80GB HBM3')}
  assert found == {
    '124M, tokens/s, must': (310e3, True), '124M, tokens/s, aim': (310e3, False),
    '124M, times as fast as torch-compile': (1.02, True), '1558M, tokens/s, must': (20e3, False),
    '1558M, tokens/s, aim': (20e3, False), '1558M, times as fast as torch-compile': (0.5, False)}
  assert [gate['wanted'] for gate in gpu.gates(rows, 'some other GPU')] == [1, 1]


def test_a_smaller_batch_is_taken_where_the_memory_is_full():
  def make(batch_size):
    if batch_size > 8:
      raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')
    return batch_size
  assert train.largest((32, 16, 8, 4), make) == 8
  with pytest.raises(RuntimeError, match='RESOURCE_EXHAUSTED'):
    train.largest((32, 16), make)
  with pytest.raises(ZeroDivisionError):
    train.largest((2, 1), lambda n: 1 // 0)


def test_a_config_changes_by_name_and_unknown_names_are_refused():
  config = train.make_config('124M', 4, {'model.dropout': 0.1, 'xla_preset': 'gpu_cublas'})
  assert (config.model.dropout, config.xla_preset, config.train.microbatch_size) == (0.1, 'gpu_cublas', 4)
  assert train.field('model.dropout=0.1') == ('model.dropout', 0.1)
  assert train.field('attention.kernel=xla') == ('attention.kernel', 'xla')
  with pytest.raises(InputError, match=r'config\.model\.droput is not a field'):
    train.main(['--set=model.droput=0.1'])


def test_operations_are_found_in_the_code_that_they_come_from():
  text = '''HloModule jit_train_step

FileNames
1 "/x/gptjax/model.py"
2 "/x/optax/transforms/_adding.py"

FunctionNames
1 "Projection.__call__"
2 "scale_by_adam.<locals>.update_fn"

FileLocations
1 {file_name_id=1 function_name_id=1 line=86 end_line=86 column=22 end_column=68}
2 {file_name_id=2 function_name_id=2 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
7 {file_location_id=2 parent_frame_id=1}

ENTRY %main {
  %dot.1 = f32[2] dot(%a, %b), metadata={op_name="dot_general" stack_frame_id=1}
  ROOT %loop_fusion.2-x = f32[2] fusion(%dot.1), metadata={op_name="add" stack_frame_id=7}
  %copy.3 = f32[2] copy(%dot.1)
}'''
  places = profile.origins(text)
  assert {name: profile.part_of(place) for name, place in places.items()} == {
    'dot.1': 'projections', 'loop_fusion.2-x': 'optimizer'}
  assert profile.part_of(('attention.py', '_attend')) == 'attention'
  assert profile.part_of(('losses.py', 'lookup')) == 'embedding'


def test_variants_are_those_of_the_device(monkeypatch):
  ours = {'kernel pallas', 'kernel pallas, dropout 0.1', 'xla_preset gpu_cublas'}
  assert not ours & variants.variants_here().keys()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert ours < variants.variants_here().keys()


def test_the_parent_leaves_the_device_to_those_it_starts():
  code = '''
from gptjax.benchmark import gpu, machine, train
machine.machine(train.PACKAGES)
train.make_config("124M")
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
'''
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, check=True)


@pytest.mark.parametrize('contender', ['torch', 'torch-compile-blocks', 'transformers'])
def test_pytorchs_loss_falls_as_ours_does(contender, monkeypatch):
  torch = pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from gptjax.benchmark import train_torch
  monkeypatch.setattr(torch, 'compile', lambda function: function)  # which contender, not how fast
  monkeypatch.setattr(torch.nn.Module, 'compile', lambda module: None)
  config = train.make_config('tiny')
  steps, facts = train_torch.torch_steps(config, train.random_batch(config), contender, 1)
  first, last = steps(1)['loss'], steps(10)['loss']
  assert last < first < 5 and facts['device'] == 'cpu'
