"""The shell and Python blocks of the documentation run, page by page, in a folder outside the checkout.

  - A `console` block has commands, after `$ `, and perhaps their output. All must succeed, or all fail in a
    block of the class `fails`. The lines of the output must appear in this order. Numbers may differ, `...`
    stands for anything.
  - A `python` block runs in the namespace of its page; one that begins with `>>> ` is a doctest.
  - A block of any language with a `:caption:` is a file: it is written under this name.
  - Blocks of the classes needs-data, needs-hardware and needs-network are skipped; those of the class slow,
    and the tutorials, run with `-m slow`.

Only .ci/wheel runs the other pages by default, against the installed wheel, and sets GPTJAX_DOCS_INSTALLED.
Elsewhere they are slow, too.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import markdown_pages as pages
import pytest

pytest.importorskip('sybil', reason="needs sybil: pip install -e '.[test]'")

import page_worker
from conftest import ENVIRONMENT
from sybil import Region, Sybil

LIMIT = 900          # seconds for a block
LONG = {'README.md'}  # pages of which every block is slow, beside the tutorials
RUN = {'console', 'python'}
SHELLS = {'sh', 'bash', 'shell', 'zsh', 'shell-session', 'pycon', 'ipython', 'py', 'python3'}  # not run
INSTALLED = 'GPTJAX_DOCS_INSTALLED'  # set where the package on the path is to be tested, and not the checkout


class Failed(AssertionError):
  """A block did not do what the page says."""


class Page:
  """What the blocks of a page share: a working folder, a shell's variables, a Python process."""

  def __init__(self, folder):
    self.folder, self.home, self.state = folder / 'work', folder / 'home', folder / 'state'
    self.output, self.results = folder / 'output', folder / 'results'
    for made in (self.folder, self.home, folder / 'bin'):
      made.mkdir()
    self.python = None
    self.env = {**ENVIRONMENT, 'HOME': str(self.home), 'NO_COLOR': '1', 'HF_HUB_OFFLINE': '1',
                'COLUMNS': '100', 'MPLBACKEND': 'Agg',
                'JAX_COMPILATION_CACHE_DIR': os.path.expanduser('~/.cache/gptjax/compiled'),
                'PATH': f'{folder / "bin"}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}'
                        f'{os.environ["PATH"]}'}
    self.env.pop('XLA_FLAGS', None)
    self.env.pop('JAX_DISABLE_MOST_OPTIMIZATIONS', None)  # the pages are to show what a user sees
    if INSTALLED in os.environ:
      self.env.pop('PYTHONPATH', None)
      return
    self.env['PYTHONPATH'] = str(pages.ROOT)
    command = folder / 'bin' / 'gptjax'  # of this checkout, also where another is installed
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gptjax "$@"\n')
    command.chmod(0o755)

  def shell(self, command):
    """Run a command where the one before it ended; returns (exit code, output)."""
    code = (f'cd "{self.folder}"; [ ! -e "{self.state}" ] || . "{self.state}" 2>/dev/null\n'
            f'{command}\ncode=$?\n{{ export -p; printf "cd %q\\n" "$PWD"; }} >"{self.state}"; exit $code')
    with open(self.output, 'w') as out:  # a file: a process left in the background would keep a pipe open
      done = subprocess.run(['bash', '-o', 'pipefail', '-c', code], cwd=self.folder, env=self.env, stdout=out,
                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=LIMIT)
    return done.returncode, self.output.read_text(errors='replace')

  def run_python(self, code, name):
    """Run code in the page's Python process; returns what is wrong."""
    if self.python is None:
      with open(self.output, 'w') as out:
        self.python = subprocess.Popen([sys.executable, page_worker.__file__, self.results], cwd=self.folder,
                                       env=self.env, stdin=subprocess.PIPE, stdout=out,
                                       stderr=subprocess.STDOUT, text=True)
      self.done = 0
    self.python.stdin.write(json.dumps({'code': code, 'name': name}) + '\n')
    self.python.stdin.flush()
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and self.python.poll() is None:
      lines = self.results.read_text().splitlines() if self.results.exists() else []
      if len(lines) > self.done:
        self.done += 1
        return json.loads(lines[self.done - 1])['error']
      time.sleep(0.05)
    return f'Python ended or exceeded {LIMIT} s:\n{self.output.read_text()[-3000:]}'

  def close(self):
    if self.python:
      self.python.stdin.close()
      self.python.kill()
      self.python.wait()


def pattern_of(line):
  """A regular expression for a line of output: numbers may differ, `...` stands for anything."""
  parts = re.split(r'(\.\.\.|\d[\d,.:e]*|\s+)', line.strip())
  return ''.join('.*' if part == '...' else r'\s+' if part.isspace() else r'[-+\d,.:e]+' if part[0].isdigit()
                 else re.escape(part) for part in parts if part)


def missing_line(shown, actual):
  """The first line of the output of a page that the actual output does not have in this order; or None."""
  lines = iter(actual.replace('\r', '\n').splitlines())
  for line in filter(str.strip, shown.splitlines()):
    if line.strip() != '...' and not any(re.fullmatch(pattern_of(line), one.strip()) for one in lines):
      return line
  return None


def run_console(page, block):
  for command, shown in pages.console_commands(block.body):
    code, output = page.shell(command)
    if bool(code) != ('fails' in block.options.get('class', '').split()):
      raise Failed(f'$ {command}\nexit code {code}\n{output[-4000:]}')
    if (line := missing_line(shown, output)) is not None:
      raise Failed(f'$ {command}\nthe page shows the line\n{line}\nbut the output is\n{output[-4000:]}')


def evaluate(example):
  """Run one block, or write it to a file; sybil adds the page and the line to what is wrong."""
  page, block = example.namespace['page'], example.parsed
  if name := block.options.get('caption'):
    path = page.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.body)
  elif block.language == 'python':
    return page.run_python(block.body, f'{example.path}:{block.line}') or None
  else:
    try:
      run_console(page, block)
    except Failed as error:
      return str(error)
  return None


def to_run(text, slow):
  """The blocks of a page that a run, with those of the class slow or without, runs or writes."""
  return [block for block in pages.blocks(text)
          if (block.language in RUN or 'caption' in block.options) and not block.needs
          and not block.language.startswith('{')
          and (slow or 'slow' not in block.options.get('class', '').split())]


def parser(slow):
  return lambda document: [Region(block.start, block.end, block, evaluate)
                           for block in to_run(document.text, slow)]


def is_long(path):
  return path.parent.name == 'tutorials' or pages.name_of(path) in LONG


def cases():
  """A fast case and a slow one for each page that has blocks for them."""
  for path in pages.paths():
    text, name = path.read_text(), pages.name_of(path)
    fast, every = to_run(text, slow=False), to_run(text, slow=True)
    has_slow = every and (is_long(path) or len(every) > len(fast))
    if fast and not is_long(path) and (INSTALLED in os.environ or not has_slow):
      yield pytest.param(path, False, id=name, marks=[pytest.mark.slow] * (INSTALLED not in os.environ))
    if has_slow:
      yield pytest.param(path, True, id=f'{name}-slow', marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.mark.parametrize('path, slow', list(cases()))
def test_blocks_run(path, slow, tmp_path):
  run_page(path, slow, tmp_path)


def run_page(path, slow, folder):
  document, page = Sybil([parser(slow)]).parse(path), Page(folder)
  document.namespace['page'] = page
  try:
    for example in document.examples():
      example.evaluate()
  finally:
    page.close()


@pytest.mark.parametrize('path', pages.paths(), ids=pages.name_of)
def test_every_shell_and_python_block_is_run_or_marked(path):
  for block in pages.blocks(path.read_text()):
    marked = block.needs or 'caption' in block.options
    assert block.language not in SHELLS or marked, (
      f'line {block.line}: {block.language} is not run: use console or python, or a class needs-data, '
      'needs-hardware or needs-network, or a caption for a file')
    if block.language == 'console':
      assert pages.console_commands(block.body), f'line {block.line}: no command'


PAGE = '''# A page

```console
$ mkdir sub && cd sub && export A=1
$ echo "loss 3.25 in $PWD" \\
    "and $A"
loss 9.99 in ...sub and 1
```

```{code-block} text
:caption: sub/file.txt
one
```

```{code-block} console
:class: needs-data
$ false
```

```console
$ cat file.txt <<'EOF'
ignored
EOF
one
```

```python
x = open('sub/file.txt').read()
```

```python
>>> x
'one...'
>>> x.strip()
'one'
```

<!-- needs-network -->
```console
$ false
```

```{code-block} console
:class: fails
$ echo so it is; exit 3
so it is
```
'''


@pytest.fixture
def write(tmp_path):
  """A function that writes a page."""
  def write(text):
    path = tmp_path / 'page.md'
    path.write_text(text)
    (tmp_path / 'run').mkdir(exist_ok=True)
    return path
  return write


def test_a_page_is_run_in_order_in_one_folder(write, tmp_path):
  run_page(write(PAGE), False, tmp_path / 'run')
  assert (tmp_path / 'run' / 'work' / 'sub' / 'file.txt').read_text() == 'one\n'


@pytest.mark.parametrize('old, new, says', [
  ('and 1\n```', 'and 2 more\n```', 'the page shows the line'), ("'one'\n```", "'two'\n```", 'two'),
  ('cat file.txt', 'cat none.txt', 'exit code 1'), ("open('sub/file.txt')", 'open(1, 2, 3, 4)', 'Traceback'),
  ('exit 3', 'true', 'exit code 0')])
def test_a_block_that_fails_is_reported_with_its_line(write, tmp_path, old, new, says):
  assert old in PAGE
  with pytest.raises(AssertionError, match=says) as error:
    run_page(write(PAGE.replace(old, new)), False, tmp_path / 'run')
  assert 'page.md' in str(error.value) and 'line' in str(error.value)


def test_slow_blocks_are_for_the_slow_run():
  text = PAGE.replace(':class: fails', ':class: fails slow')
  assert len(to_run(text, slow=True)) == len(to_run(text, slow=False)) + 1 == 6
