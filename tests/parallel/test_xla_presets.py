"""Presets of compiler options: each is known to the compiler; what cannot be is refused in words."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT, tiny_config

from gptjax.config import resolve as configs
from gptjax.kernels import xla_presets

# The GPU's options are known to the compiler of every platform, and without effect there: names are checked
# here, what they do on a GPU only.
COMPILE = """
import sys
import jax, jax.numpy as jnp
from gptjax.kernels import xla_presets
lowered = jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4)))
compiled = lowered.compile(compiler_options=xla_presets.options(sys.argv[1], "cpu") | eval(sys.argv[2]))
assert compiled(jnp.ones((4, 4)))[0, 0] == 4
"""


def compiled(preset, more='{}'):
  return subprocess.run([sys.executable, '-c', COMPILE, preset, more], cwd=ROOT, text=True,
                        env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, capture_output=True, check=False)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('preset', xla_presets.PRESETS)
def test_the_compiler_knows_all_options_of(preset):
  done = compiled(preset)
  assert done.returncode == 0, done.stderr


def test_steps_on_cpus_have_a_lower_level_unless_one_is_set(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '')
  values = {'jax_disable_most_optimizations': False}
  monkeypatch.setattr(xla_presets, 'jax', SimpleNamespace(config=SimpleNamespace(values=values)))
  level = {'xla_backend_optimization_level': 1}
  assert xla_presets.options('none', 'cpu') == level and xla_presets.options('none', 'gpu') == {}
  monkeypatch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=3')
  assert xla_presets.options('none', 'cpu') == {}
  monkeypatch.setenv('XLA_FLAGS', '')
  values['jax_disable_most_optimizations'] = True
  assert xla_presets.options('none', 'cpu') == {}


def test_one_that_it_does_not_know_would_be_seen():
  done = compiled('none', "{'xla_gpu_graph_level': 0}")
  assert done.returncode == 1 and 'No such compile option' in done.stderr


def test_a_preset_is_refused_that_does_not_exist_or_is_for_other_devices():
  for preset, said in (('fast', 'must be one of none, gpu_cublas'),
                       ('gpu_overlap', 'is for a gpu, not for a cpu')):
    config = tiny_config()
    config.xla_preset = preset
    with pytest.raises(ValueError, match=said):
      configs.resolve(config, 'unused')
      configs.check(config)
