"""The forks of docs/howto/fork.md: the laws hold for each, and catch each part that it could have forgotten.

A fork is a patch: code, its config fields, and a line of tests/variants.py for which the laws then run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT

MODEL, STEP = ['tests/model'], ['tests/train', 'tests/config/test_config.py']
# {patch: (the name in tests/variants.py by which pytest selects its laws, where they are)}
FORKS = {'differential_attention': ('differential', MODEL), 'experts': ('experts', MODEL),
         'cautious_lion': ('cautious_lion', STEP), 'inverse_sqrt': ('inverse_sqrt', STEP),
         'z_loss': ('z-loss', STEP)}

GPT, SIZE, MEMORY = 'gptjax/model/gpt.py', 'gptjax/model/size.py', 'gptjax/config/memory.py'
TRAIN_STEP, LOSS, OPTIMIZER = 'gptjax/train/step.py', 'gptjax/train/loss.py', 'gptjax/train/optimizer.py'
MESHES = 'test_meshes_and_microbatches_change_neither_loss_nor_gradients'
MATRICES = 'test_matrices_decay_and_those_of_blocks_are_matrices_of_muon'
DTYPES = 'test_each_weight_has_the_dtype_that_it_declares'

# {patch: [(what is forgotten, file, {text: the text that forgets it}, the law that fails)]}
FORGETFUL = {
  'differential_attention': [
    ('a pair of heads is on one device', GPT,
     {'sharding.head_axis(j // (1 + config.differential))': 'sharding.head_axis(j)'}, MESHES),
    ('vectors do not decay', GPT, {'0.1, decays=False, float32=True)': '0.1, float32=True)'}, MATRICES),
    ('the factor m is computed in float32', GPT,
     {'0.1, decays=False, float32=True)': '0.1, decays=False)'}, DTYPES),
    ('twice the heads take twice the FLOPs', SIZE, {' * (1 + c.differential)': ''},
     'test_the_count_of_flops_is_that_of_the_forward_pass'),
  ],
  'experts': [
    ('tokens choose experts; experts that choose tokens compare them with later ones', GPT,
     {'z >= jax.lax.top_k(z, self.per_token)[0][..., -1:]':
      'z >= jnp.sort(z, 1)[:, -z.shape[1] * self.per_token // z.shape[2]][:, None]',
      'jax.nn.softmax(jnp.where(chosen, z, -jnp.inf))': 'jax.nn.softmax(z) * chosen'},
     'test_no_position_sees_a_later_one'),
    ('the router computes in float32', GPT,
     {'bias=False,\n                             float32=True)': 'bias=False)'}, DTYPES),
    ('`inputs` and `outputs` make a weight one matrix per expert', GPT,
     {", 'mlp'), config.init_std, inputs=(1,), outputs=(2,))": ", 'mlp'), config.init_std)"}, MATRICES),
    ('the axis `mlp` shards the weights over `tensor`', GPT,
     {"(n, f, d), (None, 'mlp', 'embed')": "(n, f, d), (None, None, 'embed')"},
     'test_every_large_matrix_is_stored_in_shards_over_fsdp_and_tensor'),
    ('layers that are not scanned have the balance loss too', GPT,
     {'balances.append(balance)': 'balances.append(jax.tree.map(jnp.zeros_like, balance))'}, MESHES),
    ('the balance loss is divided by the batch, not the microbatch', TRAIN_STEP,
     {'balance / config.train.batch_size': "balance / len(batch['inputs'])"}, MESHES),
  ],
  'cautious_lion': [
    ('weights decay', OPTIMIZER,
     {', direction, optax.add_decayed_weights(c.weight_decay, decays))': ', direction)'},
     'test_where_there_is_no_gradient_weights_that_decay_do_so_and_nothing_else_changes'),
    ('the mean is that of one layer', OPTIMIZER,
     {'tuple(range(stacked, u.ndim))': 'tuple(range(u.ndim))'},
     'test_the_update_of_a_layer_depends_on_no_other_layer'),
    ('there is one moment, and not two', MEMORY, {"in ('muon', 'cautious_lion')": "== 'muon'"},
     'test_memory_needed_counts_the_state_that_a_run_really_has'),
  ],
  'inverse_sqrt': [
    ('the rate at the end of the warm-up is the peak', OPTIMIZER,
     {'jnp.sqrt(max(warmup, 1) / jnp.maximum(step, max(warmup, 1)))': 'jnp.maximum(step, 1) ** -0.5'},
     'test_warm_up_is_linear_from_zero_to_the_peak'),
    ('a run may have no warm-up', OPTIMIZER,
     {'max(warmup, 1) / jnp.maximum(step, max(warmup, 1))': 'warmup / jnp.maximum(step, warmup)'},
     'test_a_rate_is_between_zero_and_the_peak_and_constant_after_the_schedule'),
  ],
  'z_loss': [
    ('the backward pass has the term too', LOSS, {'sums / (1 + 2 * z * log_z)': 'sums'},
     'test_the_gradient_is_the_slope_of_the_loss'),
    ('positions without a target have no part in it', LOSS,
     {'log_z - target_logit + z * log_z ** 2, 0)': 'log_z - target_logit, 0) + z * log_z ** 2'},
     'test_a_position_without_a_target_has_no_part_in_the_loss'),
    ('evaluation is without it', TRAIN_STEP,
     {'soft_cap=model.soft_cap)': 'soft_cap=model.soft_cap, z=config.loss.z)'},
     'test_evaluation_is_the_log_likelihood_whatever_is_trained'),
  ],
}

BROKEN = re.compile(r'^E +(Name|Attribute|Type|Syntax)Error', re.MULTILINE)  # of Python, and not of a law


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
def test_a_fork_is_small_and_in_the_folders_of_its_subject(name):
  lines = patch_of(name).read_text().splitlines()
  folders = {Path(line.removeprefix('+++ b/')).parts[1] for line in lines if line.startswith('+++')}
  assert folders > {'defaults.py', 'variants.py'} and folders <= {
    'defaults.py', 'variants.py', 'model', 'train', 'config'}
  assert sum(line.startswith('+') and not line.startswith('+++') for line in lines) <= 75


@pytest.mark.parametrize('name', FORKS)
def test_a_patch_still_applies_and_has_each_part_that_could_be_forgotten(name, forked):
  folder = forked(name)
  for _, file, changes, _ in FORGETFUL[name]:
    text = (folder / file).read_text()
    assert all(text.count(old) == 1 for old in changes), (file, changes)


@pytest.mark.parametrize('name', FORKS)
def test_the_page_shows_the_patch_and_names_the_law_of_each_part(name):
  page = (ROOT / 'docs' / 'howto' / 'fork.md').read_text()
  _, section = page.split(f'```{{literalinclude}} ../../tests/forks/{name}.patch\n')
  rows = [line for line in section.partition('\n## ')[0].splitlines() if line.startswith('| ')][1:]
  assert rows == [f'| {part} | `{law}` |' for part, _, _, law in FORGETFUL[name]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name', FORKS)
def test_the_laws_hold_for_a_fork(name, forked):
  variant, paths = FORKS[name]
  done = run_laws(forked(name), paths, variant)
  assert done.returncode == 0 and ' passed' in done.stdout, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name, part', [(name, parts[0]) for name in FORKS for parts in FORGETFUL[name]])
def test_a_law_catches_a_fork_that_forgets_a_part(name, part, forked):
  folder = forked(name)
  (_, file, changes, law), = (forgotten for forgotten in FORGETFUL[name] if forgotten[0] == part)
  text = (folder / file).read_text()
  for old, new in changes.items():
    text = text.replace(old, new)
  (folder / file).write_text(text)
  variant, paths = FORKS[name]
  said = run_laws(folder, paths, f'{law} and {variant}').stdout
  assert f'::{law}[' in said and ' failed' in said, said[-3000:]
  assert not BROKEN.search(said), said[-3000:]
