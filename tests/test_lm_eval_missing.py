"""gptjax.lm_eval where lm-evaluation-harness is not installed, whether it is here or not."""

import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

WITHOUT = 'import sys, runpy; sys.modules["lm_eval"] = None; '


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('script, code, last', [
  ('runpy.run_module("gptjax.lm_eval", run_name="__main__")', 2, 'lm_eval: gptjax.lm_eval needs'),
  ('import gptjax.lm_eval', 1, 'ModuleNotFoundError: gptjax.lm_eval needs')])
def test_it_says_what_to_install(script, code, last):
  done = subprocess.run([sys.executable, '-c', WITHOUT + script], capture_output=True, text=True, cwd=ROOT,
                        env=ENVIRONMENT, check=False)
  assert done.returncode == code, done.stderr
  line = done.stderr.strip().split('\n')[-1]
  assert line.startswith(last) and "pip install 'gptjax[lm-eval]'" in line
