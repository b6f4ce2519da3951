"""English text that ships with Python: the language reference and the docstrings of the standard library.

About two megabytes, available wherever this package runs, so a first training run needs no data. The text
depends only on the version of Python. No module is imported.
"""

import ast
import functools
import sysconfig
import warnings
from pathlib import Path

from gptjax.data.sources import files

# Tests, third-party packages, and tables.
SKIPPED_NAMES = {'test', 'tests', 'idle_test', 'site-packages', 'dist-packages', '__pycache__', 'idlelib',
                 'lib2to3', 'pydoc_data', 'encodings', 'turtledemo', 'ensurepip', 'msilib', '__phello__'}


@functools.cache
def pieces():
  """Return a tuple of pieces: one document per topic of `pydoc` and per module of the standard library."""
  return tuple(_pieces())


def _pieces():
  from pydoc_data import topics
  for name in sorted(topics.topics):
    yield from files.document_pieces(topics.topics[name].strip() + '\n', f'topic {name}', {})
  root = Path(sysconfig.get_path('stdlib'))
  for path in sorted(_modules(root), key=lambda path: path.relative_to(root).as_posix()):
    text = _docstrings(path, '.'.join(path.relative_to(root).with_suffix('').parts))
    if text:
      yield from files.document_pieces(text, f'module {path.stem}', {})


def _modules(folder):
  for path in folder.iterdir():
    if path.name in SKIPPED_NAMES:
      continue
    if path.is_dir() and (path / '__init__.py').exists():
      yield from _modules(path)
    elif path.suffix == '.py':
      yield path


def _docstrings(path, module):
  """Return each docstring of a module under the name of its object; '' if there are none."""
  source = path.read_bytes()
  if source.count(b'"""') < 4:
    return ''
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    try:
      tree = ast.parse(source)
    except SyntaxError:  # a template, not a module
      return ''
  return ''.join(f'{part}\n\n' for part in _named_docstrings(tree, module))


def _named_docstrings(node, name):
  """Yield the name and docstring of a module, class or function, then of its members."""
  if text := (ast.get_docstring(node) or '').strip():
    yield f'{name}\n\n{text}'
  for child in node.body:
    if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
      yield from _named_docstrings(child, f'{name}.{child.name}')
