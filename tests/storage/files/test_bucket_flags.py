"""Flags and fields with paths take buckets, or refuse them in one line before anything is created."""

import argparse

import pytest

from gptjax import defaults
from gptjax.benchmark import __main__ as benchmark
from gptjax.benchmark import results
from gptjax.cli import commands
from gptjax.command import run
from gptjax.config import resolve
from gptjax.data.sources import documents
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.storage.files import hub_names, paths

# Flags of any text that are no paths, or have a part that is one, which is checked where it is read.
OTHER_TEXT = {
  '--source', '--exclude', '--tokenizer', '--clean', '--clean_without', '--on_error', '--document_separator',
  '--special_tokens', '--split', '--kind', '--prompt', '--stop', '--on_full', '--weight_dtype', '--text',
  '--train', '--test', '--own', '--examples', '--filter', '--config', '--topology', '--coordinator',
  '--workdir', 'files',
  'source', '--validation', '--name', '--size', '--urls', '--before', '--begin_of_text', '--samples'}
TAKE_BUCKETS = {('prepare', '--out'), ('prepare', '--blocked_domains'), ('prepare', '--wikipedia_titles'),
                ('prepare', '--tfds_dir'), ('inspect', 'corpus'), ('inspect', '--png'),
                ('adopt', '--out'), ('export-tokens', '--from'), ('export-tokens', '--out'),
                ('import', 'source'), ('import', 'out'),
                ('tokenizer', '--out'), ('tokenizer', '--tfds_dir'), ('overlap', '--tfds_dir')}
KINDS = {'paths.flag': paths.flag, 'paths.bucket_flag': paths.bucket_flag, 'hub_names.flag': hub_names.flag}


def actions(name):
  """(name of a flag, action) of all flags of a command with free text."""
  for action in commands.parser(name)._actions:
    flag = action.option_strings[0] if action.option_strings else action.dest
    if not isinstance(action, argparse._StoreAction | argparse._AppendAction) or action.choices:
      continue
    if not flag.startswith('--config.'):
      yield flag, action


@pytest.fixture(autouse=True)
def nothing_is_created(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  yield
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', commands.COMMANDS)
def test_each_flag_with_a_path_takes_buckets_or_refuses_them(name):
  for flag, action in actions(name):
    if action.type in KINDS.values():
      with pytest.raises(argparse.ArgumentTypeError, match='URLs are not supported here'):
        action.type('https://host/folder')
      if action.type is paths.flag:
        with pytest.raises(argparse.ArgumentTypeError, match='URLs are not supported here') as refused:
          action.type('gs://bucket/folder')
        assert '\n' not in str(refused.value)
      else:
        assert action.type('gs://bucket/folder/') == 'gs://bucket/folder'
        assert action.type('s3://bucket/folder') == 's3://bucket/folder'
        with pytest.raises(argparse.ArgumentTypeError, match='is not a name in a bucket'):
          action.type('s3://')
    else:
      number = action.type is not None or action.metavar in ('INT', 'FLOAT')
      assert number or flag in OTHER_TEXT, f'{name} {flag}: does it take a path?'


def test_these_flags_take_buckets():
  found = {(name, flag) for name in commands.COMMANDS for flag, action in actions(name)
           if action.type is paths.bucket_flag}
  assert found >= TAKE_BUCKETS


@pytest.mark.parametrize('command', [
  ['generate', '--from=gpt2', '--compilation_cache=s3://b/p', '--prompt=a'],
  ['score', '--from=gpt2', '--compilation_cache=gs://b/c', 'a.txt'],
  ['overlap', '--train=text:a', '--workdir=w', '--filters=s3://b/w'],
  ['overlap', '--train=text:a', '--workdir=w', '--examples=a=s3://b/w'],
  ['export', '--from=gpt2', '--to=s3a://b/x'], ['import', 'https://host/ckpt.pt', 'out'],
  ['prepare', '--source=text:a', '--tokenizer=gpt2', '--out=gcs://b/c']])
def test_a_command_refuses_a_bucket_in_one_line(command, capsys):
  name, *arguments = command
  module = commands.COMMANDS[name]
  arguments = [*module.arguments, *arguments]
  try:
    __import__(main_module(module.module), fromlist=['main']).main(arguments)
  except SystemExit as ended:
    assert ended.code == 2
    line = capsys.readouterr().err
  except InputError as error:  # one line and 2, by `command.run`
    line = str(error)
  else:
    raise AssertionError('it is not refused')
  mistyped = '=s3a:' in command[2] or '=gcs:' in command[-1]
  assert ('a bucket is written' if mistyped else 'URLs are not supported here') in line
  assert len(line.strip().splitlines()) <= 2


def main_module(name):
  return {'gptjax.evaluate.overlap': 'gptjax.evaluate.overlap.__main__',
          'gptjax.generate': 'gptjax.generate.__main__',
          'gptjax.pretrained': 'gptjax.pretrained.__main__'}.get(name, name)


@pytest.mark.parametrize('field', resolve.PATHS)
def test_each_field_with_a_path_takes_buckets_or_refuses_them(field):
  section, _, name = field.rpartition('.')
  domain = defaults.declared()[field].domain
  for url in ('gs://bucket/folder', 's3://bucket/folder', 'https://host/folder'):
    config = defaults.get_config()
    (config[section] if section else config)[name] = url
    if domain.bucket and not url.startswith('https'):
      resolve.make_paths_absolute(config)
      assert resolve.value_of(config, field) == url
    else:
      with pytest.raises(InputError, match=f'config.{field} = {url}: URLs are not supported here'):
        resolve.make_paths_absolute(config)


def test_a_mixture_takes_buckets():
  config = defaults.get_config()
  config.data.mixture = (('gs://bucket/a', 1.0), ('s3://bucket/b', 2.0))
  resolve.make_paths_absolute(config)
  assert [folder for folder, _ in config.data.mixture] == ['gs://bucket/a', 's3://bucket/b']


def test_the_corpus_of_a_workdir_in_a_bucket_is_there_too():
  config = defaults.get_config()
  config.train.steps = 1
  resolve.resolve(config, 'gs://bucket/run')
  assert config.data.corpus == 'gs://bucket/run/corpus'


@pytest.mark.parametrize('call', [
  lambda: loading.load('gpt2:https://host/t'), lambda: loading.load('ftp://host/t'),
  lambda: loading.load('sentencepiece:http://host/t.model')])
def test_other_urls_are_no_tokenizers(call):
  with pytest.raises(InputError, match='URLs are not supported here'):
    call()


def test_a_source_of_no_known_kind_is_refused():
  with pytest.raises(InputError, match=r"source 'gs://b/c' is none of text:GLOB"):
    documents.units(['gs://b/c'], '')


def test_benchmarks_write_no_results_to_buckets(monkeypatch, capsys):
  """All subjects take paths as `paths.flag` or as a file that uses it: refused while flags are parsed."""
  seen = []
  add = run.Parser.add_argument
  def add_argument(self, *names, **options):
    seen.append((names[0], options.get('type')))
    return add(self, *names, **options)
  monkeypatch.setattr(run.Parser, 'add_argument', add_argument)
  for subject in benchmark.SUBJECTS:
    with pytest.raises(SystemExit):
      benchmark.main([subject, '--help'])
  files = results.replaced_file, results.appended_file
  assert {'--out', '--journal'} <= {name for name, kind in seen if kind in files}
  assert not [name for name, kind in seen if name.endswith(('out', '_dir', 'folder'))
              and kind not in (paths.flag, *files)]
  with pytest.raises(argparse.ArgumentTypeError, match='gs://'):
    results.replaced_file('gs://bucket/a.json')
  capsys.readouterr()
