"""The GPU benchmark, on a CPU at a tiny size: its stages, its time limits, and its reports of failures.

The complete benchmark, in environments like those of GPU machines: test_environments.py.
"""

import hashlib
import json
import re
import signal
import subprocess
import sys

import jax
import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.benchmark import gpu, journal, sizes, toolchain
from gptjax.benchmark.subjects import check, profile, train, variants
from gptjax.errors import InputError
from gptjax.parallel import sharding

EVERYTHING = lambda contender: ''  # in place of `train.missing_package`: all is installed


@pytest.mark.ci
def test_failures_and_timeouts_are_recorded_and_the_run_continues(tmp_path, capfd, monkeypatch):
  monkeypatch.setattr(gpu, 'MIN_STAGE_S', 3)
  monkeypatch.setattr(toolchain, 'cuda_environment', lambda: {'PYTHONPATH': str(ROOT)})
  wrong = gpu.Stage('wrong', ['train', '--size=none'], 1000)
  too_long = gpu.Stage('too long', ['check', '--size=tiny'], 1e-9)
  out = tmp_path / 'new' / 'gpu.json'
  assert gpu.run_stages([too_long, wrong], 60, str(out)) == 1
  parts = json.loads(out.read_text())['details']['parts']
  assert parts['wrong']['error'] == 'exit code 2' and 'invalid choice' in parts['wrong']['stderr']
  assert parts['too long']['error'] == 'cut off after 3 s'
  assert parts['too long']['share'] == 3 and parts['too long']['seconds'] >= 3
  said = capfd.readouterr().out
  assert 'invalid choice' in said and '=== too long, at most 3 s' in said
  out = tmp_path / 'again.json'
  assert gpu.run_stages([wrong], 0.5, str(out)) == 1
  assert json.loads(out.read_text())['details']['parts']['wrong']['error'] == 'skipped: no time is left'


def test_a_stage_ends_with_its_parent():
  part = subprocess.Popen([sys.executable, '-m', 'gptjax.benchmark.stage', 'train', '--turns=1000'], cwd=ROOT,
                          env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0)
  part.stdin.close()
  assert part.wait() == -signal.SIGKILL


def test_an_earlier_run_is_not_overwritten(tmp_path):
  (tmp_path / 'gpu.jsonl').write_text('{}')
  with pytest.raises(InputError, match='holds an earlier run'):
    gpu.main([f'--out={tmp_path}/gpu.json'])


def test_each_stage_has_its_share_of_the_remaining_time():
  part = lambda weight: gpu.Stage('x', [], weight)
  assert gpu.time_budget([part(30), part(10)], 400) == 300
  assert gpu.time_budget([part(10)], 400) == 400
  assert gpu.time_budget([part(1), part(99)], 400) == gpu.MIN_STAGE_S  # too little would be of no use to it
  assert gpu.time_budget([part(1), part(99)], 5) == 5


@pytest.mark.parametrize('memory', [80 << 30, 141 << 30])
def test_the_most_valuable_stages_are_first_and_profile_is_last(monkeypatch, memory):
  monkeypatch.setattr(gpu, 'missing_package', EVERYTHING)
  names = [part.name for part in gpu.stages(gpu.SIZES, memory)]
  largest = (['gptjax,torch-compile-blocks'] if memory > gpu.LARGE_MEMORY
             else ['gptjax', 'torch-compile-blocks'])
  assert names == [
    'train 124M gptjax,torch-compile,transformers-compile', 'attention 124M',
    'train 355M gptjax,torch-compile', 'train 774M gptjax,torch-compile-blocks',
    *(f'train 1558M {names}' for names in largest), 'generate 124M', 'check 124M', 'variants 124M',
    'profile 124M']
  assert [part.name for part in gpu.first_stages('124M')] == [
    'attention 124M', 'train 124M gptjax,torch,torch-compile']


def test_without_pytorch_its_contenders_are_skipped(monkeypatch):
  monkeypatch.setattr(gpu, 'missing_package', lambda name: '' if name == 'gptjax' else 'torch')
  parts = gpu.stages(gpu.SIZES, 0)
  assert [part.name for part in parts if part.name.startswith('train')] == [
    f'train {size} gptjax' for size in gpu.SIZES]
  assert not any('torch' in flag or 'transformers' in flag for part in parts for flag in part.flags)


@pytest.mark.parametrize('gib, size, contenders, batch', [
  (79.1, '124M', 3, 16), (79.1, '355M', 2, 16), (79.1, '774M', 2, 8), (79.1, '1558M', 1, 8),
  (140.4, '124M', 3, 32), (140.4, '355M', 2, 32), (140.4, '774M', 2, 16), (140.4, '1558M', 2, 8),
  (24, '124M', 3, 4), (8, '1558M', 1, 1), (1000, '124M', 1, sizes.MAX_BATCH_SIZE)])
def test_batch_sizes_fit_the_memory(gib, size, contenders, batch):
  tried = sizes.batch_sizes(size, gib * 2**30 * train.MEMORY_SHARE / contenders)
  assert tried[0] == batch and tried[-1] >= 1 and tried == sorted(tried, reverse=True)
  assert sizes.batch_sizes(size, None) == [sizes.SIZES[size].batch]


def test_packages_are_those_of_setup_and_an_older_one_is_reported(monkeypatch):
  core = (ROOT / 'setup.py').read_text().partition('DATA')[0]
  bounds = dict(re.findall(r"'(jax|flax|optax|numpy)>=([\d.]+)", core))
  assert {name: '.'.join(map(str, least)) for name, least in toolchain.REQUIRED.items()} == bounds
  assert not {'jax', 'flax', 'optax', 'numpy'} & dict(toolchain.package_facts()).keys()
  monkeypatch.setattr(toolchain, 'version', {'jax': '0.11.2', 'flax': '0.10.7', 'numpy': '2.5.2'}.get)
  facts = dict(toolchain.package_facts())
  assert facts['flax'].startswith('0.10.7, but gptjax needs 0.12 or newer: pip install --no-index')
  assert facts['optax'].startswith('absent, but gptjax needs 0.2.8') and not {'jax', 'numpy'} & facts.keys()


def toolkit(folder):
  """A CUDA toolkit of two files."""
  for name, text in ((toolchain.PTXAS, '#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n'),
                     (toolchain.LIBDEVICE, '')):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
  return folder


def test_a_toolkit_that_pip_has_not_installed_is_shown_to_jax(tmp_path, monkeypatch):
  for name in ('CUDA_ROOT', 'CUDA_PATH', 'CUDA_DIR'):
    monkeypatch.delenv(name, raising=False)
  root = toolkit(tmp_path / 'cuda')
  monkeypatch.setenv('CUDA_HOME', str(root))
  monkeypatch.setattr(toolchain, 'WHEELS', ())
  assert toolchain.cuda_environment() == {'CUDA_ROOT': str(root)}
  facts = dict(toolchain.cuda_facts())
  assert facts['ptxas'] == f'{root}/bin/ptxas 13.0.88'
  assert facts['libdevice'] == f'{root}/{toolchain.LIBDEVICE}'
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(toolchain, 'WHEELS', ('cuda',))  # in a package, JAX finds it
  assert toolchain.cuda_environment() == {} and toolchain.pip_cuda_root() == str(root)


def test_the_output_of_nvidia_smi_is_parsed(tmp_path, monkeypatch):
  tool = tmp_path / 'nvidia-smi'
  tool.write_text('#!/bin/sh\necho "NVIDIA H200, 143771, 580.159.04, 1980, 3201, 700.00"\n')
  tool.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
  assert toolchain.gpu_info()['name'] == 'NVIDIA H200'
  assert toolchain.gpu_memory(toolchain.gpu_info()) == 143771 << 20
  tool.write_text('#!/bin/sh\necho No devices were found; exit 6\n')
  assert toolchain.gpu_info() == {} and toolchain.gpu_memory({}) == 0


@pytest.mark.ci
def test_check_compiles_few_programs(tmp_path, monkeypatch):
  monkeypatch.setattr(sharding, 'make_mesh', lambda axes: sharding.single_mesh())
  compiled = []
  listen = lambda event, duration, **_: compiled.append(event)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    assert check.main(['--size=tiny', f'--journal={tmp_path}/a.jsonl']) == 0
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  # Of four kernels one runs here; the others add at most one program each.
  assert compiled.count('/jax/core/compile/backend_compile_duration') <= 10
  kinds = [record['kind'] for record in journal.read(tmp_path / 'a.jsonl')]
  assert kinds == ['fact'] * 4 + ['gate'] * 2


@pytest.mark.ci
def test_a_smaller_batch_is_used_if_memory_is_full():
  def make(batch_size):
    if batch_size > 8:
      raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')
    return batch_size
  assert train.with_largest_batch((32, 16, 8, 4), make) == 8
  with pytest.raises(RuntimeError, match='RESOURCE_EXHAUSTED'):
    train.with_largest_batch((32, 16), make)
  with pytest.raises(ZeroDivisionError):
    train.with_largest_batch((2, 1), lambda n: 1 // 0)


def test_a_config_changes_by_name_and_unknown_names_are_refused():
  config = sizes.make_config('124M', 4, {'model.dropout': 0.1, 'xla_preset': 'gpu_cublas'})
  assert (config.model.dropout, config.xla_preset, config.train.microbatch_size) == (0.1, 'gpu_cublas', 4)
  assert train.config_override('model.dropout=0.1') == ('model.dropout', 0.1)
  assert train.config_override('attention.kernel=xla') == ('attention.kernel', 'xla')
  with pytest.raises(InputError, match=r'config\.model\.droput is not a field'):
    train.main(['--set=model.droput=0.1'])


def test_operations_are_attributed_to_components():
  text = '''HloModule jit_train_step

FileNames
1 "/x/gptjax/model/layers.py"
2 "/x/optax/transforms/_adding.py"

FunctionNames
1 "Projection.affine"
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
  places = profile.operation_sources(text)
  assert {name: profile.component_of(place) for name, place in places.items()} == {
    'dot.1': 'projections', 'loop_fusion.2-x': 'optimizer'}
  assert profile.component_of(('attention.py', '_attend')) == 'attention'
  assert profile.component_of(('layers.py', 'lookup')) == 'embedding'
  assert profile.component_of(('cpu_forms.py', 'elementwise.<locals>.in_float32')) == 'activation'
  assert profile.component_of(('cpu_forms.py', 'unstacked')) == 'projections'
  assert profile.component_of(('cpu_matmul.py', 'sum_over_rows')) == 'attention'


def test_variants_are_those_of_the_device(monkeypatch):
  ours = {'kernel pallas', 'kernel pallas, dropout 0.1', 'xla_preset gpu_cublas'}
  assert not ours & variants.available_variants().keys()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert ours < variants.available_variants().keys()


@pytest.mark.ci
def test_the_parent_does_not_initialize_the_device():
  code = '''
from gptjax.benchmark import gpu, machine, sizes, toolchain
from gptjax.benchmark.subjects import train
machine.machine_info(train.PACKAGES)
toolchain.cuda_facts()
sizes.make_config("124M")
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
'''
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, check=True)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('contender', ['torch', 'torch-compile-blocks', 'transformers'])
def test_pytorchs_loss_falls_as_ours_does(contender, monkeypatch):
  torch = pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from gptjax.benchmark import train_torch
  monkeypatch.setattr(torch, 'compile', lambda function: function)  # which contender, not how fast
  monkeypatch.setattr(torch.nn.Module, 'compile', lambda module: None)
  config = sizes.make_config('tiny')
  steps, facts = train_torch.torch_trainer(config, sizes.random_batch(config), contender, 1)
  first, last = steps(1)['loss'], steps(10)['loss']
  assert last < first < 5 and facts['device'] == 'cpu'


# The interface of nanoGPT's model.py: it prints, and returns the loss beside the logits.
MODEL_PY = """
from dataclasses import dataclass
from torch import nn

@dataclass
class GPTConfig:
  block_size: int = 1024
  vocab_size: int = 50304
  n_layer: int = 12
  n_head: int = 12
  n_embd: int = 768
  dropout: float = 0.0
  bias: bool = True

class GPT(nn.Module):
  def __init__(self, config):
    super().__init__()
    self.wte = nn.Embedding(config.vocab_size, config.n_embd)
    self.out = nn.Linear(config.n_embd, config.vocab_size)
    print('number of parameters')

  def forward(self, idx, targets=None):
    logits = self.out(self.wte(idx))
    return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


def test_a_clone_of_nanogpt_is_trained_as_it_is_and_prints_no_result(tmp_path, capsys):
  pytest.importorskip('torch')
  from gptjax.benchmark import train_torch
  (tmp_path / 'model.py').write_text(MODEL_PY)
  config = sizes.make_config('tiny')
  steps, facts = train_torch.torch_trainer(config, sizes.random_batch(config), 'nanogpt', 1, str(tmp_path))
  assert steps(1)['loss'] > steps(10)['loss']
  assert facts['nanogpt_sha256'] == hashlib.sha256(MODEL_PY.encode()).hexdigest()
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('given', [[], ['--nanogpt=absent']])
def test_nanogpt_without_a_clone_is_refused(given):
  with pytest.raises(InputError, match='give the folder of a clone of nanoGPT'):
    train.main(['--contenders=gptjax,nanogpt', *given])
