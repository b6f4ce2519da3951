"""The code base can be entered: imports point one way, folders are small, each package says what is in it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT

# From the bottom to the top: a package imports from its own row and from those before it.
ROWS = [('errors', 'defaults', 'domains', 'text'), ('storage.files',), ('command',), ('kernels', 'parallel'),
        ('model',), ('train',), ('storage', 'data'), ('config', 'pretrained', 'generate'),
        ('evaluate', 'lm_eval'), ('report',), ('finetune', 'pretrain'), ('main', 'plan', 'benchmark'),
        ('cli',), ('__main__',)]
RANK = {name: number for number, row in enumerate(ROWS) for name in row}
MOST = 16  # modules in a folder
PURE = ('model', 'train')
# Calls that reach files: functions, and methods of paths.
FILE_FUNCTIONS = re.compile(
  r'open|io\.open|mmap\..*|glob\.i?glob|shutil\..*|np\.(memmap|fromfile|load|loadtxt|save|savez.*)|'
  r'os\.(open|replace|re\w*name\w*|remove|unlink|listdir|scandir|walk|l?stat|mkdir|makedirs|link|symlink)|'
  r'os\.path\.(exists|lexists|is\w+|getsize)')
FILE_METHODS = {'open', 'exists', 'is_file', 'is_dir', 'is_symlink', 'stat', 'lstat', 'iterdir', 'glob',
                'rglob', 'walk', 'mkdir', 'rmdir', 'touch', 'unlink', 'rename', 'symlink_to', 'hardlink_to',
                'read_bytes', 'read_text', 'write_bytes', 'write_text', 'tofile'}
# Packages that take part in a run, and what else than runs and corpora their modules read.
OF_RUNS = 'config', 'data', 'evaluate', 'finetune', 'generate', 'pretrain', 'pretrained', 'report', 'lm_eval'
OTHER_FILES = {
  'config/files.py': 'configuration files, which are Python code',
  'config/memory.py': 'limits of memory in /proc and /sys',
  'config/resolve.py': 'the code of gptjax, for its digest; a probe of a new workdir',
  'data/sources/file_access.py': 'texts of users, through fsspec',
  'data/sources/python.py': 'the code of sources',
  'data/sources/tar.py': 'an archive that is open',
  'pretrained/openai.py': 'arrays on this machine, mapped by NumPy',
}
IMPURE = {'os', 'time', 'signal', 'pathlib', 'subprocess', 'socket', 'shutil', 'tempfile', 'threading'}


def modules():
  """{dotted name: path} of all modules; packages under their own name."""
  found = {}
  for path in sorted((ROOT / 'gptjax').rglob('*.py')):
    parts = path.relative_to(ROOT).with_suffix('').parts
    found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return found


def imported(path, names):
  """Modules of gptjax, and others, that a file imports anywhere in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        yield whole if whole in names else node.module
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


def edges():
  names = modules()
  del names['gptjax']  # which only hands on `load`, `save_pretrained` and `score`
  return {name: {one for one in imported(path, names) if one in names and one != name}
          for name, path in names.items()}


def test_imports_point_one_way():
  def package(name):
    _, *parts = name.split('.')
    return '.'.join(parts[:2]) if '.'.join(parts[:2]) in RANK else parts[0]
  assert {package(name) for name in edges()} == RANK.keys()
  upward = [f'{name} imports {other}' for name, others in edges().items() for other in others
            if RANK[package(other)] > RANK[package(name)]]
  assert not upward


def test_no_modules_import_each_other_in_a_circle():
  left = edges()
  while ready := [name for name, others in left.items() if not others & left.keys()]:
    for name in ready:
      del left[name]
  assert not left


def test_folders_are_small_and_say_what_is_in_them():
  for init in (ROOT / 'gptjax').rglob('__init__.py'):
    inside = [path for path in init.parent.glob('*.py') if not path.stem.startswith('_')]
    assert len(inside) <= MOST, init.parent
    assert ast.get_docstring(ast.parse(init.read_text())), init


@pytest.mark.parametrize('package', PURE)
def test_the_model_and_its_training_touch_no_disk_clock_process_or_signal(package):
  for path in (ROOT / 'gptjax' / package).rglob('*.py'):
    assert not IMPURE & set(imported(path, {})), path


def reached_files(path):
  """The calls in a file that reach files by themselves, not through gptjax."""
  tree = ast.parse(path.read_text())
  own = {alias.asname or alias.name for node in ast.walk(tree)
         if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith('gptjax')
         for alias in node.names}
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute | ast.Name):
      text, receiver = ast.unparse(node), node.value if isinstance(node, ast.Attribute) else None
      method = receiver is not None and node.attr in FILE_METHODS and ast.unparse(receiver) not in own
      if method or (FILE_FUNCTIONS.fullmatch(text) and text not in own):
        yield f'{path.relative_to(ROOT)}:{node.lineno}: {text}'


def test_only_the_storage_reaches_the_files_of_runs_and_corpora():
  paths = {str(path.relative_to(ROOT / 'gptjax')): path for package in OF_RUNS for place in
           (f'{package}.py', f'{package}/**/*.py') for path in (ROOT / 'gptjax').glob(place)}
  found = {name: list(reached_files(path)) for name, path in paths.items()}
  assert not [line for name, lines in found.items() if name not in OTHER_FILES for line in lines]
  assert not [name for name in OTHER_FILES if not found[name]], 'these need no exception'


READS = re.compile(r'(access|buckets|cache|json_files)\.(read|find|file|folder|local_file|entry|names)\b.*|'
                   r'(corpus_manifest\.)?read_manifest|work\.read\w*|run_config\.read')


def test_an_outage_is_not_taken_for_damage():
  """`Unavailable` is a ValueError, so what may read from a bucket is not inside of `except ValueError`."""
  for path in modules().values():
    for attempt in ast.walk(ast.parse(path.read_text())):
      if not isinstance(attempt, ast.Try):
        continue
      reads = {ast.unparse(call.func) for line in attempt.body for call in ast.walk(line)
               if isinstance(call, ast.Call) and READS.fullmatch(ast.unparse(call.func))}
      seen = set()
      for handler in attempt.handlers if reads else ():
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        names = {ast.unparse(kind) for kind in kinds if kind}
        again = any(isinstance(node, ast.Raise) and not node.exc for node in ast.walk(handler))
        taken = names & {'ValueError', 'InputError'} and not seen & {'Unavailable', 'InputError'}
        assert again or not taken, f'{path}:{handler.lineno}: {reads}'
        seen |= names


@pytest.mark.ci
def test_tests_leave_the_environment_of_the_others_as_it_is():
  changes = re.compile(r'os\.(environ(\[[^]]*\] *[|+]?= |\.(update|setdefault|pop|clear))|putenv|unsetenv)')
  for path in sorted((ROOT / 'tests').rglob('*.py')):
    if path.name != 'conftest.py':
      nodes = ast.walk(ast.parse(path.read_text()))
      lines = [ast.unparse(node) for node in nodes if isinstance(node, ast.stmt)]
      assert not [line for line in lines if changes.match(line)], f'{path}: use monkeypatch'


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', [
  'gptjax.load', 'gptjax.save_pretrained', 'gptjax.score', 'gptjax.train.train_step',
  'gptjax.generate.sample'])
def test_names_that_others_rely_on_are_where_they_were(name):
  module, _, attribute = name.rpartition('.')
  code = f'import importlib; assert callable(getattr(importlib.import_module({module!r}), {attribute!r}))'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, check=True)


@pytest.mark.parametrize('command', [
  'main', 'generate', 'lm_eval', 'plan', 'benchmark', 'report', 'data.prepare', 'data.inspect',
  'data.adopt', 'data.export', 'data.webtext_links', 'data.languages', 'finetune.glue',
  'data.tokenizers', 'data.clean', 'evaluate.overlap', 'evaluate.samples', 'evaluate.score', 'pretrained'])
def test_commands_that_others_rely_on_are_where_they_were(command):
  path = Path(ROOT, 'gptjax', *command.split('.'))
  assert path.with_suffix('.py').exists() or (path / '__main__.py').exists()
