"""Changes that researchers make: each is a small patch, and the laws hold, or catch what it forgets.

Each patch adds an option in one folder, its config field, and its line in tests/variants.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT

MODEL, STEP = ['tests/model'], ['tests/train/test_optimizer.py', 'tests/train/test_step.py']
# {patch: (name of its variant or optimizer, tests that it must pass)}
FORKS = {'rotary': ('rotary', MODEL), 'swiglu': ('swiglu', MODEL), 'grouped_query': ('grouped-query', MODEL),
         'qk_norm': ('qk-norm', MODEL), 'lion': ('lion', STEP)}

GPT, OPTIMIZER = 'gptjax/model/gpt.py', 'gptjax/train/optimizer.py'
# {patch: (file, {text: the text that forgets something}, the law that catches it)}
FORGETFUL = {
  'rotary': (GPT, {'positions = jnp.arange(t)[None] if positions is None else positions':
                   'positions = jnp.arange(t)[None]'},  # cached tokens are all at position 0
             'test_decoding_with_a_cache_gives_the_logits_of_the_forward_pass_or_is_refused'),
  'swiglu': (GPT, {"Projection(named(key, 'c_gate'), [(d, 'embed')], [(f, 'mlp')], config.init_std)":
                   "weight(named(key, 'c_gate'), (d, f), ('embed', 'mlp'), config.init_std)",
                   'self.c_gate(x, activation)':
                   "activation(jnp.einsum('btd,df->btf', x, gathered(self.c_gate)))"},  # Adam gets it
             'test_random_weights_decay_and_those_of_blocks_are_matrices_of_muon'),
  # Two heads cannot be sharded over four devices.
  'grouped_query': (GPT, {'sharding.head_axis(config.n_kv_head)': "'heads'"},
                    'test_meshes_and_microbatches_change_neither_loss_nor_gradients'),
  'qk_norm': (GPT, {'constant(1, (k,), (None,), float32=True)': 'constant(1, (k,), (None,))'},  # in bfloat16
              'test_each_weight_has_the_dtype_that_it_declares'),
  'lion': (OPTIMIZER, {'  return optax.chain(clip, direction,': "  if c.name == 'lion':\n"
                       '    return optax.chain(clip, direction)\n'
                       '  return optax.chain(clip, direction,'},  # no weight decay
           'test_where_there_is_no_gradient_weights_that_decay_do_so_and_nothing_else_changes'),
}


@pytest.fixture
def forked(tmp_path):
  """A function that copies the tree and applies a patch to it; returns the folder."""
  def fork(name):
    for folder in ('gptjax', 'configs', 'tests'):
      shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns('__pycache__', 'forks'))
    for file in ('pyproject.toml', 'setup.py'):
      shutil.copy(ROOT / file, tmp_path)
    subprocess.run(['patch', '--silent', '--fuzz=0', '-p1', '-i', patch_of(name)], cwd=tmp_path, check=True)
    return tmp_path
  return fork


def patch_of(name):
  return Path(__file__).with_name(f'{name}.patch')


def run_laws(folder, paths, expression):
  return subprocess.run(
    [sys.executable, '-m', 'pytest', '-q', '-n0', '-x', '-p', 'no:cacheprovider', *paths,
     '-m', '', '-k', expression],
    cwd=folder, env={**ENVIRONMENT, 'PYTHONPATH': f'{folder}{os.pathsep}{folder / "tests"}'},
    capture_output=True, text=True, check=False)


@pytest.mark.parametrize('name', FORKS)
def test_a_fork_touches_one_folder_and_adds_at_most_30_lines(name):
  lines = patch_of(name).read_text().splitlines()
  files = {line.removeprefix('+++ b/') for line in lines if line.startswith('+++')}
  assert files > {'gptjax/defaults.py', 'tests/variants.py'}
  assert len({Path(file).parent for file in files - {'gptjax/defaults.py', 'tests/variants.py'}}) == 1
  assert sum(line.startswith('+') and not line.startswith('+++') for line in lines) <= 30


@pytest.mark.parametrize('name', FORKS)
def test_a_patch_still_applies(name, forked):
  assert forked(name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name', FORKS)
def test_the_laws_hold_for_a_fork(name, forked):
  variant, paths = FORKS[name]
  done = run_laws(forked(name), paths, variant)
  assert done.returncode == 0 and ' passed' in done.stdout, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name', FORKS)
def test_a_law_catches_a_fork_that_forgets_something(name, forked):
  folder, (file, changes, law) = forked(name), FORGETFUL[name]
  text = (folder / file).read_text()
  for old, new in changes.items():
    assert text.count(old) == 1, old
    text = text.replace(old, new)
  variant, paths = FORKS[name]
  assert run_laws(folder, paths, f'{law} and {variant}').returncode == 0
  (folder / file).write_text(text)
  done = run_laws(folder, paths, f'{law} and {variant}')
  said = done.stdout
  assert done.returncode == 1 and 'FAILED' in said and 'NameError' not in said, said[-3000:]
