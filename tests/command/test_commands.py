"""What all commands share: one line and exit code 2 for what a user can mend, a traceback and 1 for a bug."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, command, slow_except, train

import gptjax
from gptjax import defaults, errors
from gptjax.command import run as commands
from gptjax.errors import InputError
from gptjax.text import text_checks

HALF = '\udcff'  # what Python makes of the byte 0xff in an argument

# Files that raise a plain ValueError where only our own code can be wrong.
PLAIN = {
  'model/attention.py',     # a kernel with dropout: the config has been checked against it
  'evaluate/scoring/scores.py',  # a request longer than the context: what asks cuts or refuses it
  'plan/hlo.py',            # a program of the compiler that is not understood
  # A line from an untrusted process, which only closes its connection.
  'parallel/rendezvous_server.py', 'parallel/wire.py',
  # A damaged record or row, for the reader that called, which reports the place or refuses the file.
  'storage/files/records.py', 'report/telemetry.py', 'storage/rewind_log.py', 'evaluate/journal.py',
  'finetune/tasks/text_files.py', 'storage/files/bounded.py', 'storage/files/json_files.py',
  'evaluate/samples/store.py',
  'parallel/cluster.py',    # a package that is absent, for the function that names the variable
}


def run(*arguments, env=None, code=None):
  """A command in a process of its own; `code` in place of -m."""
  start = ['-c', code] if code else ['-m']
  return subprocess.run([sys.executable, *start, *arguments], cwd=ROOT, env={**ENVIRONMENT, **(env or {})},
                        capture_output=True, text=True, errors='surrogateescape', timeout=120)


def test_the_package_raises_value_errors_only_where_its_own_code_can_be_wrong():
  """Raised, or as the base of an exception: else an error of a user would be shown as a bug."""
  root, found = Path(gptjax.__file__).parent, set()
  for path in sorted(root.rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      raised = node.exc if isinstance(node, ast.Raise) else None
      name = raised.func if isinstance(raised, ast.Call) else raised
      bases = node.bases if isinstance(node, ast.ClassDef) and node.name != 'InputError' else []
      if any(isinstance(one, ast.Name) and one.id == 'ValueError' for one in [name, *bases]):
        found.add(str(path.relative_to(root)))
  assert found == PLAIN


def test_all_commands_end_through_the_one_function():
  """`command.run`, or `errors.print_line` in the two that take a config; and begin by `startup.begin`."""
  root = Path(gptjax.__file__).parent
  for path in sorted(root.rglob('*.py')):
    text = path.read_text()
    if "if __name__ == '__main__':" not in text or path.name in ('train_torch.py', 'stage.py'):  # workers
      continue
    assert 'run.run(' in text or 'command.run(' in text or 'errors.print_line(' in text, path
    package = (path.parent / '__init__.py').read_text() if path.name == '__main__.py' else ''
    assert 'startup.begin(' in text or 'startup.begin(' in package, path
  assert 'print_line' in (root / 'command' / 'run.py').read_text()


WRAPPER = """
import json, sys
from gptjax import main
from gptjax.pretrain import loop
def bug(config, workdir, given):
  {body}
loop.pretrain = bug
sys.exit(main.main(['main', *sys.argv[1:]]))
"""


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('body, says', [
  ('b, t, d = (1, 2)', 'ValueError: not enough values'), ("json.loads('[')", 'JSONDecodeError')])
def test_a_bug_and_an_error_of_a_library_keep_their_traceback(body, says, corpus_folder, tmp_path):
  flags = command(corpus_folder, tmp_path)[3:]
  done = run(*flags, code=WRAPPER.format(body=body))
  assert done.returncode == 1
  assert 'Traceback' in done.stderr and says in done.stderr.splitlines()[-1]
  assert body in done.stderr or '<string>' in done.stderr


@pytest.mark.parametrize('error, expected', [
  (InputError('two\nlines'), (2, 'x: two lines\n')), (OSError(28, 'full'), (2, None)),
  (OSError(5, 'I/O'), (2, None)), (ValueError('a bug'), None), (OSError(2, 'absent'), None)])
def test_how_a_command_ends(error, expected, monkeypatch, capsys):
  def job(arguments):
    raise error
  monkeypatch.setattr(sys, 'argv', ['x'])
  if expected is None:
    with pytest.raises(type(error)) as raised:
      commands.run(job, 'x')
    assert raised.value is error
    return
  with pytest.raises(SystemExit) as end:
    commands.run(job, 'x')
  said = capsys.readouterr().err
  assert end.value.code == expected[0] and said.startswith('x: ') and said.count('\n') == 1
  assert expected[1] in (None, said)


HELP = {name: ['--help'] for name in (
  'data.adopt', 'data.export', 'finetune.glue',
  'generate.__main__', 'report.__main__', 'pretrained.__main__', 'data.prepare', 'data.inspect',
  'data.clean.__main__', 'data.tokenizers.__main__', 'evaluate.overlap.__main__', 'evaluate.score',
  'evaluate.samples.__main__',
  'benchmark.__main__', 'benchmark.subjects.train')}
HELP |= {'main': ['main', '--help'], 'plan.__main__': ['plan', '--config=none.py', '-help']}


@pytest.mark.parametrize('name', HELP)
def test_each_command_has_help(name, capsys):
  main = importlib.import_module(f'gptjax.{name}').main
  if name == 'benchmark.__main__':  # gives the exit code
    assert main(HELP[name]) == 0
  else:
    with pytest.raises(SystemExit) as end:
      main(HELP[name])
    assert not end.value.code
  said = capsys.readouterr()
  assert 'python -m gptjax.' in said.out and not said.err


@pytest.mark.parametrize('flag', ['--help', '--helpfull'])
def test_help_of_a_real_command_lists_its_own_flags_and_fields(flag):
  done = run('gptjax.main', flag)
  assert done.returncode == 0 and not done.stderr
  for name in ('--config=FILE', '--workdir=', '--[no]predict', '--process_id=', '--config.train.steps=0'):
    assert f'\n  {name}' in done.stdout, name
  listed = [name for name in defaults.declared() if f'\n  --config.{name}=' in done.stdout]
  assert len(listed) == len(defaults.declared()) if flag == '--helpfull' else len(listed) < 40
  assert 'alsologtostderr' not in done.stdout, 'flags of absl'


def test_help_shows_the_values_of_the_config():
  done = run('gptjax.main', '--config=gpt2_zero_shot', '--config.job=evaluate', '--help')
  assert 'each with its value in gpt2_zero_shot' in done.stdout
  assert '--config.eval.grid=True' in done.stdout and '--config.eval.tasks=lambada,cbt_cn' in done.stdout


def test_a_command_gives_its_exit_code(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['x'])
  assert commands.run(lambda arguments: None, 'x') is None
  with pytest.raises(SystemExit) as end:
    commands.run(lambda arguments: 7, 'x')
  assert end.value.code == 7


WITH_CONFIG = ['gptjax.main', '--config=configs/quickstart.py', f'--workdir=/tmp/{HALF}']
WITHOUT = ['gptjax.generate', '--from=gpt2', f'--prompt=a{HALF}']


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('arguments', slow_except([
  WITH_CONFIG, WITHOUT,
  ['gptjax.main', '--config=configs/quickstart.py', '--workdir=/tmp/x', f'--config.data.source=text:{HALF}'],
  ['gptjax.plan', '--config=configs/quickstart.py', f'--topology={HALF}'],
  ['gptjax.data.prepare', f'--source=text:{HALF}', '--tokenizer=gpt2', '--out=x'],
  ['gptjax.benchmark', 'table', HALF]], WITH_CONFIG, WITHOUT))
def test_arguments_that_are_not_utf_8_are_refused(arguments):
  done = run(*arguments)
  assert done.returncode == 2 and 'cannot be encoded as UTF-8' in done.stderr, done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
  done.stderr.encode()  # what is printed can be encoded


def test_a_prompt_in_utf_8_under_another_locale_is_named_as_such(monkeypatch):
  monkeypatch.setattr(os, 'fsencode', lambda text: text.encode('ascii', 'surrogateescape'))
  with pytest.raises(InputError, match='PYTHONUTF8=1'):
    text_checks.require_valid_arguments(['--prompt=' + 'é'.encode().decode('ascii', 'surrogateescape')])


def test_texts_that_are_not_unicode_are_refused_where_they_are_read(tmp_path):
  from gptjax.evaluate.scoring import overlap_scores
  from gptjax.evaluate.texts import schema, sources
  from gptjax.finetune.tasks import examples
  from gptjax.generate.generation import check_options
  text_checks.require_valid('日本 \U0001f600', 'x')
  path = tmp_path / 'x.jsonl'
  path.write_text('{"text": "a"}\n{"text": "b", "more": ["\\ud800"]}\n')
  with pytest.raises(InputError, match=r'x\.jsonl:2 is not valid Unicode'):
    sources.read_jsonl(sources.DataOptions('', '', 0), path, schema.Schema('texts', {'text': schema.text()}))
  with pytest.raises(InputError, match=r'x\.jsonl is not valid Unicode'):
    overlap_scores.read_examples(path)
  path.write_text('{"a": {"\\udfff": 1}}')
  with pytest.raises(InputError, match=r'x\.jsonl is not valid Unicode'):
    sources.read_json(path)
  with pytest.raises(InputError, match="the text of 'a' is not valid Unicode"):
    examples._text({'a': '\ud800'}, 'a', False)
  with pytest.raises(InputError, match='prompt or stop string is not valid Unicode'):
    check_options(['\ud800'], 1, 1, 1.0, None, None, 0, [], 'stop', 1)


def test_names_of_files_and_folders_that_are_not_utf_8_are_refused(tmp_path, monkeypatch):
  from gptjax.data.sources import file_access
  (tmp_path / f'a{HALF}.txt').write_text('text')
  with pytest.raises(InputError, match='the name of a file is not valid Unicode'):
    file_access.find_files(f'{tmp_path}/*')
  (tmp_path / f'folder{HALF}').mkdir()
  monkeypatch.chdir(tmp_path / f'folder{HALF}')
  with pytest.raises(InputError, match='the name of the current folder is not valid Unicode'):
    text_checks.require_valid_arguments([])


def test_config_fields_that_are_not_unicode_are_refused(tmp_path):
  path = tmp_path / 'odd.py'
  path.write_text("from gptjax import defaults\ndef get_config():\n  config = defaults.get_config()\n"
                  "  config.data.source = 'text:\\udcff'\n  return config\n")
  done = run('gptjax.main', f'--config={path}', f'--workdir={tmp_path}/run')
  assert done.returncode == 2, done.stderr
  assert 'config.data.source' in done.stderr and 'valid Unicode' in done.stderr
  assert not (tmp_path / 'run').exists()


def test_a_config_without_a_job_cannot_be_planned(tmp_path):
  path = tmp_path / 'none.py'
  path.write_text("from gptjax import defaults\ndef get_config():\n  config = defaults.get_config()\n"
                  "  del config.job\n  return config\n")
  done = run('gptjax.plan', f'--config={path}', '--topology=h100:8')
  assert done.returncode == 2 and 'config.job' in done.stderr and 'Traceback' not in done.stderr


def test_a_full_disk_is_told_apart_with_and_without_a_workdir():
  full = OSError(28, 'full')
  assert 'there is no checkpoint yet' in errors.describe(full, 'runs/x')[0]
  assert 'checkpoint' not in errors.describe(full, '')[0]


def test_a_filter_that_the_disk_cannot_hold_is_refused_before_anything_is_read(tmp_path):
  (tmp_path / 'a.txt').write_text('one two three four five six seven eight nine ten')
  overlap = importlib.import_module('gptjax.evaluate.overlap.__main__')
  with pytest.raises(InputError, match=r'takes [\d,]{17,} bytes, and [\d,]+ are free'):
    overlap.main([f'--train=text:{tmp_path}/a.txt', f'--test=a=text:{tmp_path}/a.txt',
                  f'--workdir={tmp_path}/w', f'--capacity={10**15}', '--workers=1'])


def test_a_batch_that_no_memory_holds_is_refused(corpus_folder):
  from gptjax.data import inspect
  flags = [str(corpus_folder), '--step=1', '--seq_len=9', '--seed=0', '--cross_documents=true',
           '--shift_windows=false']
  with pytest.raises(InputError, match=r'needs [\d,]+ bytes'):
    inspect.main([*flags, f'--batch_size={2**31 - 1}'])


def report_of(folder, **files):
  """The error of `gptjax.report` for a workdir with these files."""
  from conftest import tiny_config

  from gptjax.report.__main__ import main
  config = tiny_config()
  config.job = 'evaluate'
  whole = {'config': {'config': config.to_dict(), 'versions': {'jax': '0'}, 'devices': ['cpu', 1]}}
  folder.mkdir()
  for name, content in {**whole, **files}.items():
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / f'{name}.json').write_bytes(text)
  with pytest.raises(InputError) as error:
    main([f'--workdir={folder}'])
  assert not (folder / 'report.html').exists()
  return str(error.value)


RESULTS = {'tasks': {'lambada': {'accuracy': 0.5}}, 'grids': {},
           'model': {'n_layer': 1, 'n_embd': 8, 'n_head': 1, 'n_ctx': 8, 'parameters': 9, 'name': 'x'}}


@pytest.mark.parametrize('name, content, says', [
  ('samples', b'[{"prompt": ""', 'not JSON'), ('samples', b'\xff', 'not JSON'),
  ('samples', {'a': 1}, 'its content is not a list'), ('samples', [1], '[0] is not an object'),
  ('samples', [{'prompt': '', 'text': 5, 'top_k': 40, 'seed': 0}], "[0].text is 5, not str"),
  ('samples', [{'prompt': '', 'text': '\ud800', 'top_k': 40, 'seed': 0}], 'not valid Unicode'),
  ('results', [], 'its content is not an object'), ('results', {}, "has no 'tasks'"),
  ('results', {**RESULTS, 'tasks': {'lambada': {'accuracy': 'x'}}}, 'tasks.lambada.accuracy'),
  ('results', {**RESULTS, 'limit': True}, 'limit is'),
  ('results', {**RESULTS, 'rows': {'coqa': 3}}, 'rows.coqa is not a list'),
  ('results', {**RESULTS, 'grids': {'ptb': [{'text': 'raw'}]}}, "grids.ptb[0] has no 'stride'"),
  ('overlap', {'tests': {}, 'filters': {'train': {}}, 'by_overlap': {}}, "filters.train has no"),
  ('overlap', {'tests': {'a': {}}, 'filters': {}, 'by_overlap': {}}, "tests.a has no 'documents'"),
  ('config', {'config': {'job': 'evaluate'}}, "config.json"), ('config', [1], 'config.json'),
  ('config', b'null', 'config.json')])
def test_a_report_names_the_file_that_is_damaged(name, content, says, tmp_path):
  error = report_of(tmp_path / 'run', **{name: content})
  assert f'{name}.json' in error and says in error and '\n' not in error


@pytest.mark.slow
def test_a_damaged_file_beside_a_finished_run_does_not_make_it_fail(corpus_folder, tmp_path):
  (tmp_path / 'overlap.json').write_text('{')
  done = train(corpus_folder, tmp_path, '--config.train.steps=2', '--config.log.sample_tokens=0')
  assert done.returncode == 0, done.stderr
  assert f'the report failed, continuing without: {tmp_path}/overlap.json is damaged' in done.stderr
