"""What gptjax loads is never run: no pickle, eval, exec or remote code anywhere in its syntax tree.

`tests/data/test_tfds_folder.py` has the same of what TFDS loads.
"""

import ast
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

MODULES = {'pickle', 'cPickle', '_pickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'}
BUILTINS = {'eval', 'exec', 'compile', '__import__'}
CALLS = {'pandas.read_pickle', 'pd.read_pickle', 'yaml.load', 'yaml.unsafe_load', 'os.system',
         'os.popen'}
KEYWORDS = {'allow_pickle', 'trust_remote_code', 'shell'}  # may only be False


def dangers(source):
  """[(line, what)] of what could run something that was loaded."""
  found, nodes = [], list(ast.walk(ast.parse(source)))
  tensors_only = {id(node.func) for node in nodes if isinstance(node, ast.Call) and any(
    word.arg == 'weights_only' and isinstance(word.value, ast.Constant) and word.value.value is True
    for word in node.keywords)}
  for node in nodes:
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name.split('.')[0] for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [(node.module or '').split('.')[0]]
      if names == ['torch'] and any(alias.name == 'load' for alias in node.names):
        found.append((node.lineno, 'torch.load under another name'))
    found += [(node.lineno, name) for name in names if name in MODULES]
    if isinstance(node, ast.Call):
      called = ast.unparse(node.func)
      unsafe = {word.arg for word in node.keywords if word.arg in KEYWORDS
                and not (isinstance(word.value, ast.Constant) and word.value.value is False)}
      if called in BUILTINS | CALLS or unsafe:
        found.append((node.lineno, ast.unparse(node)))
      if called.endswith('.load') and called.split('.')[0] in ('np', 'numpy', 'jnp') and not any(
          word.arg == 'allow_pickle' for word in node.keywords):
        found.append((node.lineno, f'{called} without allow_pickle=False'))
    elif isinstance(node, ast.Name) and node.id in BUILTINS:
      found.append((node.lineno, node.id))
    elif (isinstance(node, ast.Attribute) and ast.unparse(node) in ('torch.load', 'torch.serialization.load')
          and id(node) not in tensors_only):
      found.append((node.lineno, 'torch.load without weights_only=True'))
  return found


FILES = sorted([*(ROOT / 'gptjax').rglob('*.py'), *(ROOT / 'configs').rglob('*.py')])


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_loaded_is_ever_run(path):
  found = {what for _, what in dangers(path.read_text())}
  if path.parts[-2:] == ('config', 'files.py'):  # a config file is a program of the user's own
    assert {what.partition('(')[0] for what in found} == {'compile', 'exec'}
  else:
    assert not found


@pytest.mark.parametrize('source', [
  'import pickle', 'from pickle import loads', 'torch.load(f)', 'torch.load(f, weights_only=False)',
  'torch.load(f, weights_only=asked)', 'from torch import load', 'load = torch.load', 'np.load(f)',
  'eval(text)',
  'f = exec', 'np.load(f, allow_pickle=True)', 'np.load(f, allow_pickle=asked)',
  'load(x, trust_remote_code=True)', 'def f():\n  __import__(name)'])
def test_the_test_sees_what_it_is_for(source):
  assert dangers(source)


def test_what_is_harmless_is_not_taken_for_it():
  assert not dangers('torch.load(f, weights_only=True)')
  assert not dangers('np.load(f, allow_pickle=False)\nmodel.eval()\nre.compile(x)\njson.load(f)')


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('flags', [
  ('gptjax.generate', '--from=.'),
  ('gptjax.main', '--config=quickstart.py', '--config.init_from=.', '--workdir=run')])
def test_files_of_a_downloaded_folder_are_not_run_in_it(tmp_path, flags):
  """With names that gptjax's own modules and configs have, in the folder where a command is run."""
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'model.safetensors').write_bytes(b'')
  for folder in ('', 'configs', 'data', 'evaluate', 'tests'):
    (tmp_path / folder).mkdir(exist_ok=True)
    for name in ('__init__', 'default', 'defaults', 'quickstart', 'gpt2_small', 'config', 'model', 'prepare',
                 'tokenizer', 'conftest', 'hubconf', 'setup', 'modeling_gpt2', 'configuration_gpt2'):
      (tmp_path / folder / f'{name}.py').write_text('print("EXECUTED", __file__)\n')
  (tmp_path / 'quickstart.py').unlink()  # which --config would name
  found = subprocess.run([sys.executable, '-m', *flags], cwd=tmp_path, capture_output=True, text=True,
                         env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)}, timeout=120)
  assert found.returncode == 2 and 'EXECUTED' not in found.stdout + found.stderr
  assert 'Traceback' not in found.stderr and 'config.json' in found.stderr
