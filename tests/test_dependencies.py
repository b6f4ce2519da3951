"""setup.py: what is imported is declared, what is installed is allowed, and what has known holes is not."""

import ast
import re
import sys
from importlib import metadata

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

DECLARED = [Requirement(text) for text in re.findall(r"'([a-zA-Z][\w.-]*(?:\[[\w,-]+\])?[<>=][^']*)'",
                                                     (ROOT / 'setup.py').read_text())]
OURS = {'gptjax', 'configs'}
NEWER_PYTHON = {'compression'}  # of Python 3.14
# Modules whose distribution has another name than they have.
OF = {'absl': 'absl-py', 'backports': 'backports.zstd', 'google': 'google-auth', 'orbax': 'orbax-checkpoint',
      'tensorflow': 'tensorflow-cpu', 'yaml': 'pyyaml'}


def plain(name):
  return re.sub('[-_.]+', '-', name).lower()


def imported():
  """{top-level module that is not of Python: files of gptjax that import it}."""
  found = {}
  for path in [*(ROOT / 'gptjax').rglob('*.py'), *(ROOT / 'configs').glob('*.py')]:
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
        [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
      for name in {name.partition('.')[0] for name in names} - OURS - NEWER_PYTHON - sys.stdlib_module_names:
        found.setdefault(name, set()).add(path.name)
  return found


def test_what_is_imported_is_declared():
  names = {plain(requirement.name) for requirement in DECLARED}
  assert not {name: files for name, files in imported().items() if plain(OF.get(name, name)) not in names}


@pytest.mark.parametrize('name, hole', [
  ('sentencepiece', '0.2.2'), ('pyarrow', '16.1.0'), ('tiktoken', '0.12.0'), ('requests', '2.32.3')])
def test_a_version_with_a_known_hole_is_not_allowed(name, hole):
  requirement, = (one for one in DECLARED if one.name == name)
  assert not requirement.specifier.contains(hole)


def test_what_is_installed_is_allowed():
  for requirement in DECLARED:
    try:
      version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:  # of an extra
      continue
    assert requirement.specifier.contains(version, prereleases=True), f'{requirement}, not {version}'
