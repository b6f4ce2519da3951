"""The console script: every sub-command reaches its module, and its help is fast."""

import importlib.util
import inspect
import re
import runpy
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

import gptjax
from gptjax import defaults, errors
from gptjax.cli import dispatch
from gptjax.cli.commands import ALIASES, COMMANDS, parser
from gptjax.command import spelling
from gptjax.command.parsers import generate
from gptjax.errors import InputError

LARGE = {'jax', 'jaxlib', 'flax', 'tensorflow', 'torch', 'transformers', 'matplotlib'}
HERE = [name for name, command in COMMANDS.items() if importlib.util.find_spec(command.module)]
BARE = 'clean', 'doctor'  # need no arguments
MODULES = sorted({COMMANDS[name].module for name in HERE} - {'gptjax.cli.doctor', 'gptjax.cli.completion'})


def run(*arguments, importtime=False):
  """`python -m ARGUMENTS` in a process of its own."""
  start = ['-X', 'importtime'] * importtime + ['-m']
  return subprocess.run([sys.executable, *start, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True,
                        text=True, timeout=60)


def imported(stderr):
  """(top-level packages in the output of -X importtime, the other lines)."""
  lines = stderr.splitlines()
  times = [line for line in lines if line.startswith('import time:')]
  return {line.rpartition('|')[2].strip().partition('.')[0] for line in times}, [*set(lines) - set(times)]


@pytest.fixture
def reached(monkeypatch):
  """The (module, sys.argv) that the dispatcher runs, a list."""
  found = []
  monkeypatch.setattr(spelling, '_subcommands', {})
  record = lambda module, **options: found.append((module, sys.argv[1:], options))
  monkeypatch.setattr(runpy, 'run_module', record)
  return found


@pytest.mark.parametrize('name', [*HERE, *ALIASES])
def test_every_subcommand_reaches_its_module_with_its_arguments(name, reached, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['gptjax', name, '--seed=5', 'x'])
  dispatch.main()
  command = COMMANDS[ALIASES.get(name, name)]
  assert reached == [(command.module, [*command.arguments, '--seed=5', 'x'],
                      {'run_name': '__main__', 'alter_sys': True})]


def test_a_subcommand_and_its_module_print_the_same():
  both = [run('gptjax', 'clean'), run('gptjax.data.clean')]
  assert both[0].stdout == both[1].stdout and both[0].returncode == both[1].returncode == 0 and both[0].stdout


@pytest.mark.parametrize('name', [*HERE, *ALIASES, ''])
def test_the_help_of_every_subcommand_imports_nothing_large_and_has_an_example(name):
  done = run('gptjax', *[name] * bool(name), '--help', importtime=True)
  packages, others = imported(done.stderr)
  assert done.returncode == 0 and not others and 'gptjax' in packages
  assert not LARGE & packages
  assert 'usage: gptjax' in done.stdout and re.search('^example:\n +gptjax ', done.stdout, re.MULTILINE)
  assert 'python -m' not in done.stdout
  if name:
    assert f'gptjax {ALIASES.get(name, name)} ' in f'{done.stdout} '.replace('\n', ' ')


@pytest.mark.parametrize('module', MODULES)
def test_the_help_of_every_module_imports_nothing_large_and_has_an_example(module):
  done = run(module, '-h', importtime=True)
  packages, others = imported(done.stderr)
  assert done.returncode == 0 and not others and not LARGE & packages
  assert re.search(rf'^example:\n +python -m {re.escape(module)}\b', done.stdout, re.MULTILINE)


@pytest.mark.parametrize('name', [name for name in HERE if name not in BARE])
def test_a_subcommand_without_arguments_says_what_it_does(name):
  done = run('gptjax', name, importtime=True)
  packages, others = imported(done.stderr)
  assert done.returncode == 2 and len(others) == 1 and not LARGE & packages
  purpose, example = done.stdout.split('\n\nexample:\n  ')
  assert purpose[0].isupper() and example.startswith(f'gptjax {name} ')


@pytest.mark.parametrize('subject', ['train', 'finetune', 'gpu', 'table'])
def test_the_help_of_a_subject_of_the_benchmark_is_fast(subject):
  done = run('gptjax', 'benchmark', subject, '--help', importtime=True)
  assert done.returncode == 0 and not LARGE & imported(done.stderr)[0]
  assert f'gptjax benchmark {subject}' in done.stdout


def test_the_help_of_the_benchmark_lists_all_subjects(capsys):
  from gptjax.benchmark.__main__ import SUBJECTS, main
  assert main(['--help']) == 0
  said = capsys.readouterr().out
  for subject in SUBJECTS:
    assert re.search(rf'^  {subject} +[A-Z]\w+', said, re.MULTILINE), subject


@pytest.mark.parametrize('arguments', [['gptjax', '--version'], ['gptjax', 'plan', '--version'],
                                       ['gptjax.main', '--version'], ['gptjax.data.inspect', '--version']])
def test_the_version(arguments):
  done = run(*arguments)
  assert (done.returncode, done.stdout, done.stderr) == (0, f'gptjax {gptjax.__version__}\n', '')


@pytest.mark.parametrize('given, says', [
  ('pretain', 'did you mean pretrain?'), ('tran', 'did you mean train?'), ('docter', 'did you mean doctor?'),
  ('sample', 'did you mean generate?'), ('eval', 'did you mean evaluate?'), ('bench', 'mean benchmark?'),
  ('zzzzzz', 'the commands are pretrain, finetune'), ('--config=x', 'begin with a command')])
def test_an_unknown_subcommand_is_refused_in_one_line(given, says):
  done = run('gptjax', given)
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith('gptjax: ') and says in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.parametrize('flags', [['--config.job=evaluate'], ['--config.job', 'evaluate']])
def test_a_job_that_contradicts_the_subcommand_is_refused(flags, reached, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['gptjax', 'finetune', '--config=quickstart', *flags])
  with pytest.raises(SystemExit) as end:
    dispatch.main()
  assert end.value.code == 2 and 'contradicts `gptjax finetune`' in capsys.readouterr().err and not reached


def test_the_overview_lists_every_subcommand_and_how_to_complete_them():
  for name in COMMANDS:
    assert f'\n  {name} ' in dispatch.overview(), name
  assert 'gptjax completion bash' in dispatch.overview()


@pytest.mark.parametrize('name', HERE)
def test_every_subcommand_has_a_parser_with_its_flags(name):
  made = parser(name)
  assert made.purpose and made.format_help()
  if COMMANDS[name].module in ('gptjax.main', 'gptjax.plan'):
    known = made._option_string_actions
    assert {f'--config.{field}' for field in defaults.declared()} | {'--config'} <= known.keys()


def test_the_help_of_generate_has_the_defaults_of_sample():
  from gptjax.generate import sample
  parameters = inspect.signature(sample).parameters
  assert {name: parameters[name].default for name in generate.DEFAULTS} == generate.DEFAULTS
  assert generate.DOMAINS.keys() <= parameters.keys()


def test_texts_have_the_command_as_the_user_called_it(monkeypatch):
  monkeypatch.setattr(spelling, '_subcommands', {})
  text = ('python -m\n gptjax.pretrained export, `python -m gptjax.pretrained import a b`, '
          'python -m gptjax.main --config=configs/a.py, python -m gptjax.none')
  assert spelling.spelled(text) == text
  spelling.use_console_script(main='evaluate')
  assert spelling.spelled(text) == (
    'gptjax export, `gptjax import a b`, gptjax evaluate --config=a, python -m gptjax.none')


def test_errors_have_the_command_as_the_user_called_it(monkeypatch, capsys):
  monkeypatch.setattr(spelling, '_subcommands', {})
  error = InputError('--config=configs/a.py: run python -m gptjax.data.prepare')
  errors.print_line(error, 'x')
  spelling.use_console_script()
  errors.print_line(error, 'x')
  assert capsys.readouterr().err == (f'x: {error}\nx: --config=configs/a.py: run gptjax prepare\n')


def test_every_module_of_a_subcommand_has_its_spelling():
  several = {'gptjax.main': {'pretrain', 'finetune', 'evaluate', 'sweep'},
             'gptjax.pretrained': {'export', 'import'}}
  for name, command in COMMANDS.items():
    assert spelling.SUBCOMMANDS[command.module] in several.get(command.module, {name})
