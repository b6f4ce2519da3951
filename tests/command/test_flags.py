"""Numeric flags: each has a domain beside it, of every command, and what lies just outside is refused."""

import argparse
import ast
import importlib
import importlib.util
import math
import pkgutil
import re
from pathlib import Path

import pytest

import gptjax
from gptjax.benchmark import results, subjects
from gptjax.benchmark.subjects.scaling import device_counts
from gptjax.benchmark.subjects.train import config_override
from gptjax.command import flag_types, run
from gptjax.command.flag_types import Listed, Number, integer, real
from gptjax.errors import InputError
from gptjax.storage.files import hub_names, paths

COMMANDS = ('gptjax.generate.__main__', 'gptjax.report.__main__', 'gptjax.pretrained.__main__',
            'gptjax.data.adopt', 'gptjax.data.export', 'gptjax.data.prepare', 'gptjax.data.inspect',
            'gptjax.data.clean.__main__', 'gptjax.finetune.glue',
            'gptjax.data.tokenizers.__main__',
            'gptjax.evaluate.overlap.__main__', 'gptjax.evaluate.score', 'gptjax.benchmark.gpu',
            'gptjax.evaluate.samples.__main__',
            'gptjax.benchmark.table',
            *(f'gptjax.benchmark.subjects.{one.name}' for one in pkgutil.iter_modules(subjects.__path__)))
# `device_counts` has a test of its own.
TEXT = (None, paths.flag, paths.bucket_flag, results.replaced_file, results.appended_file, hub_names.flag,
        config_override, device_counts)


class Parsed(Exception):
  """Raised in place of parsing; holds the parser."""


def parser_of(name, monkeypatch):
  """The parser of a module's command; None if the module has none."""
  def stop(self, *args, **kwargs):
    raise Parsed(self)
  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
  if name.endswith('torch') and not importlib.util.find_spec('torch'):
    return None
  module = importlib.import_module(name)
  if not hasattr(module, 'main'):
    return None
  with pytest.raises(Parsed) as parsed:
    module.main([])
  return parsed.value.args[0]


def require_domain(kind):
  """The ends of a flag's domain belong to it unless its words call them open; all beyond is refused."""
  number = kind.number if isinstance(kind, Listed) else kind
  whole, (words, _, low, high, *_) = number.kind is int, number.domain
  next_to = lambda value, to: value + int(math.copysign(1, to)) if whole else math.nextafter(value, to)
  text = str if whole else repr
  opened = [low] if 'number in (' in words else []
  opened += [high] if re.search(r'number in .*\d\)', words) else []
  beyond = map(text, [next_to(low, -math.inf), next_to(high, math.inf), *opened])
  for value in (*beyond, 'nan', 'inf', '-inf', '', 'x', '9' * 5000, *(['1.5', '1e3'] if whole else [])):
    with pytest.raises(argparse.ArgumentTypeError, match='must be'):
      number(value)
  for value in {low, high} - {*opened}:
    assert number(text(value)) == value


@pytest.mark.parametrize('name', COMMANDS)
def test_every_numeric_flag_has_a_domain(name, monkeypatch):
  parser = parser_of(name, monkeypatch)
  for action in parser._actions if parser else ():
    numeric = isinstance(action.type, Number | Listed)
    assert numeric or action.type in TEXT, f'{action.option_strings}: a flag with a type but no domain'
    defaults = action.default if isinstance(action.default, list | tuple) else [action.default]
    of_numbers = any(isinstance(value, int | float) and not isinstance(value, bool) for value in defaults)
    assert numeric or action.type is device_counts or not of_numbers, action.option_strings
    if numeric:
      require_domain(action.type)
      domain = (action.type.number if isinstance(action.type, Listed) else action.type).domain
      assert all(value in (None, argparse.SUPPRESS) or domain.holds(value) for value in defaults), name


def test_every_parser_gives_its_errors_as_input_errors(monkeypatch):
  for name in COMMANDS:
    parser = parser_of(name, monkeypatch)
    assert parser is None or isinstance(parser, run.Parser), name


@pytest.mark.parametrize('path', ['config/job_flags.py', 'plan/flags.py'])
def test_numeric_flags_beside_a_config_have_bounds(path):
  """In the source: both define a flag `config`, which absl allows once in a process."""
  tree = ast.parse((Path(gptjax.__file__).parent / path).read_text())
  found = [call for call in ast.walk(tree) if isinstance(call, ast.Call)
           and getattr(call.func, 'attr', '') in ('DEFINE_integer', 'DEFINE_float')]
  assert len(found) == 2
  for call in found:
    assert {'lower_bound', 'upper_bound'} <= {keyword.arg for keyword in call.keywords}, ast.unparse(call)


def test_counts_of_devices():
  assert device_counts('8,16') == (8, 16) and device_counts('') == ()
  for text in ('0', '-8', '3', '8,', 'x', str(2**17), '9' * 5000):
    with pytest.raises(argparse.ArgumentTypeError):
      device_counts(text)


def test_messages_name_value_and_domain():
  with pytest.raises(argparse.ArgumentTypeError, match=r'^0 must be a whole number from 1 to 10$'):
    integer(1, 10)('0')
  with pytest.raises(argparse.ArgumentTypeError, match=r'^1 must be a number in \[0, 1\)$'):
    real(0, 1, open_right=True)('1')
  with pytest.raises(InputError, match=r'^t = nan must be a number in \[1e-06, 2\], or 0 \(greedy\)$'):
    real(1e-6, 2, also={0: 'greedy'}).require('t', math.nan)
  with pytest.raises(argparse.ArgumentTypeError) as error:
    integer(1)('9' * 5000)
  assert len(str(error.value)) < 120


@pytest.mark.parametrize('module, flags', [
  ('gptjax.data.inspect', ['corpus', f'--step={2**62}']),
  ('gptjax.data.tokenizers.__main__', ['train', '--kind=bpe', f'--vocab_size={2**31}', '--source=python:',
                                       '--out=x']),
  ('gptjax.generate.__main__', ['--from=x', f'--top_k={2**63}']),
  ('gptjax.generate.__main__', ['--from=x', '--temperature=nan']),
  ('gptjax.generate.__main__', ['--from=x', f'--seed={2**64}']),
  ('gptjax.evaluate.overlap.__main__', ['--workdir=x', '--rate=1e-300']),
  ('gptjax.evaluate.overlap.__main__', ['--workdir=x', f'--capacity={10**18}']),
  ('gptjax.data.prepare', ['--source=python:', '--tokenizer=gpt2', '--out=x', '--workers=100000']),
  ('gptjax.report.__main__', ['--workdir=x', '--samples=-1'])])
def test_numbers_that_ended_in_a_traceback_an_abort_or_never(module, flags, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match='must be a '):
    importlib.import_module(module).main(flags)
  assert not list(tmp_path.iterdir())


def test_workers_are_bounded_by_the_machine():
  assert flag_types.WORKERS >= 64
