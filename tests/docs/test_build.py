"""The site builds without a warning, from the checkout alone, and shows what the code declares."""

import importlib.util
import subprocess
import sys

import markdown_pages as pages
import pytest
from conftest import ENVIRONMENT

pytestmark = pytest.mark.ci
NEEDED = 'sphinx', 'myst_parser', 'sphinx_book_theme', 'sphinx_copybutton'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """The folder of the built site."""
  missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
  if missing:
    pytest.skip(f"needs {', '.join(missing)}: pip install -e '.[docs]'")
  out = tmp_path_factory.mktemp('site')
  done = subprocess.run([sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-d', out / 'doctrees',
                         pages.DOCS, out / 'html'], cwd=out, env=ENVIRONMENT, capture_output=True, text=True,
                        timeout=280)
  assert done.returncode == 0, done.stderr
  return out / 'html'


def test_fields_and_flags_have_anchors(site):
  config = (site / 'reference' / 'config.html').read_text()
  assert 'id="confval-config.train.steps"' in config or 'id="confval-config-train-steps"' in config
  assert 'gptjax prepare' in (site / 'reference' / 'commands.html').read_text()


def test_the_functions_have_their_docstrings(site):
  api = (site / 'reference' / 'api.html').read_text()
  for name in ('gptjax.load', 'gptjax.generate.sample', 'gptjax.train.step.train_step',
               'gptjax.lm_eval.HarnessModel'):
    assert f'id="{name}"' in api, name
  assert api.count('Parameters') > 20


def test_nothing_but_mathematics_is_loaded_from_elsewhere(site):
  for page in site.rglob('*.html'):
    text = page.read_text()
    outside = [line for line in text.splitlines() if '<script' in line and 'src="http' in line
               and 'mathjax' not in line.lower()]
    assert not outside, page
    assert '<link rel="stylesheet" href="http' not in text, page
