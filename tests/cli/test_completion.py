"""Shell completion: the script that shtab makes knows all sub-commands, flags and fields."""

import shutil
import subprocess
import sys

import pytest

from gptjax.cli import completion
from gptjax.cli.commands import ALIASES, COMMANDS
from gptjax.errors import InputError

ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"$(complete -p gptjax | sed 's/.*-F \\([^ ]*\\).*/\\1/')" gptjax
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope='module')
def script(tmp_path_factory):
  shtab = pytest.importorskip('shtab')
  path = tmp_path_factory.mktemp('completion') / 'gptjax'
  path.write_text(shtab.complete(completion.whole_parser(), 'bash'))
  return path


def completed(script, *words):
  """What bash offers for the last word."""
  bash = shutil.which('bash')
  done = subprocess.run([bash, '-c', ASK, 'bash', script, 'gptjax', *words], capture_output=True, text=True,
                        timeout=30)
  assert not done.stderr
  return done.stdout.split()


def test_all_subcommands_are_completed(script):
  assert completed(script, 'pre') == ['pretrain', 'prepare']
  offered = {*completed(script, '')}
  assert {*COMMANDS, *ALIASES} <= offered


@pytest.mark.parametrize('words, expected', [
  (['generate', '--max'], ['--max_tokens']),
  (['prepare', '--tok'], ['--tokenizer']),
  (['finetune', '--config.finetune.n_s'], ['--config.finetune.n_seeds']),
  (['benchmark', 'near'], ['near_duplicates']),
  (['tokenizer', 't'], ['train'])])
def test_flags_fields_and_choices_are_completed(script, words, expected):
  assert completed(script, *words) == expected


@pytest.mark.parametrize('shell', [shell for shell in completion.SHELLS if shell != 'fish'])
def test_every_shell_has_a_script(shell, capsys):
  pytest.importorskip('shtab')
  completion.main([shell])
  # In tcsh, shtab completes commands and not the flags of each.
  assert ('pretrain' if shell == 'tcsh' else '--config.train.steps') in capsys.readouterr().out


@pytest.mark.parametrize('line, expected', [
  ('gptjax pre', ['prepare', 'pretrain']),
  ('gptjax generate --max', ['--max_tokens']),
  ('gptjax finetune --config.finetune.n_s', ['--config.finetune.n_seeds']),
  ('gptjax benchmark near', ['near_duplicates']),
  ('gptjax completion f', ['fish'])])
def test_fish_completes_commands_flags_fields_and_choices(line, expected, tmp_path):
  fish = shutil.which('fish')
  if not fish:
    pytest.skip('needs fish')
  script = tmp_path / 'gptjax.fish'
  script.write_text(completion.fish_script())
  done = subprocess.run([fish, '--no-config', '-c', f'source {script}; complete -C {line!r}'], text=True,
                        capture_output=True, timeout=60, env={'HOME': str(tmp_path), 'PATH': '/usr/bin:/bin'})
  assert not done.stderr
  assert [found.partition('\t')[0] for found in done.stdout.splitlines()] == expected


def test_fish_needs_no_shtab(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'shtab', None)
  completion.main(['fish'])
  script = capsys.readouterr().out
  assert "-l config.train.steps -r -d" in script and '%%' not in script


def test_without_shtab_one_line_says_how_to_install_it(monkeypatch):
  monkeypatch.setitem(sys.modules, 'shtab', None)
  with pytest.raises(InputError, match=r"pip install 'gptjax\[completion\]'"):
    completion.main(['bash'])
