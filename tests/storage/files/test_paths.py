"""Paths that users write become absolute where they enter, in every flag and field."""

import ast
import os
from pathlib import Path

import pytest

import gptjax
from gptjax import defaults
from gptjax.config import resolve as configs
from gptjax.data.sources import documents
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.storage.files import paths

# Flags that name one folder or file; those that take KIND:WHERE are expanded where they are read.
FLAGS = {'--out', '--workdir', '--tfds_dir', '--data_dir', '--filters', '--into', '--from', '--to',
         '--prompt_file', '--png', 'corpus', 'paths', '--blocked_domains', '--wikipedia_titles', '--folder'}


@pytest.mark.parametrize('written, found', [
  ('runs/x', '{cwd}/runs/x'), ('~/runs', '{home}/runs'), ('~', '{home}'), ('//tmp//x/', '/tmp/x'),
  ('.', '{cwd}'), ('/a/../b', '/a/../b'), ('', ''), (Path('a'), '{cwd}/a'), ('[x]\\y', '{cwd}/[x]\\y')])
def test_local(written, found, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', '/home/someone')
  assert paths.local(written) == found.format(cwd=tmp_path, home='/home/someone')


@pytest.mark.parametrize('written', ['gs://b/run', 's3://b', 'file:///tmp', '~nobody-of-this-name/x'])
def test_what_is_no_path_of_this_machine_is_refused(written):
  with pytest.raises(InputError, match='--workdir ' + written):
    paths.local(written, '--workdir')


def test_a_relative_path_from_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  os.rmdir(tmp_path)
  with pytest.raises(InputError, match='current folder'):
    paths.local('runs')


def test_every_field_that_names_a_folder_is_absolute_afterwards(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = defaults.get_config()
  config.init_from, config.data.mixture = 'weights', (('a', 1.0), ('~/b', 2.0))
  for field in ('corpus', 'tfds_dir'):
    config.data[field] = '' if field == 'corpus' else '~/sets'
  configs.make_paths_absolute(config)
  assert config.init_from == f'{tmp_path}/weights' and config.data.corpus == ''
  assert config.data.tfds_dir == os.path.expanduser('~/sets')
  assert [folder for folder, _ in config.data.mixture] == [f'{tmp_path}/a', os.path.expanduser('~/b')]
  named = [name for name in configs.flat(config) if name.endswith(('_dir', '_from', '.corpus', '_cache'))]
  assert sorted(named) == sorted(configs.PATHS)


@pytest.mark.parametrize('set_there, corpus, says', [
  (('data.source',), '', ''), (('data.source', 'data.corpus'), 'corpora/fineweb', ''),
  ((), 'corpora/fineweb', 'fineweb')])
def test_a_source_on_the_command_line_is_not_put_into_the_corpus_of_the_config_file(
    set_there, corpus, says, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = defaults.get_config()
  config.data.update(dict(corpus='corpora/fineweb', reference='fineweb', recipe='--source=fineweb',
                          recipe_cost='31 GB', source='text:mine/*.txt'))
  configs.make_paths_absolute(config, set_there)
  assert config.data.corpus == (corpus and f'{tmp_path}/{corpus}') and config.data.source == 'text:mine/*.txt'
  assert bool(config.data.reference) == bool(config.data.recipe) == bool(says)


def test_every_flag_that_names_a_folder_is_made_absolute():
  seen = set()
  for file in Path(gptjax.__file__).parent.rglob('*.py'):
    for call in ast.walk(ast.parse(file.read_text())):
      if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith(('add', 'add_argument'))):
        continue
      names = FLAGS & {word.value for word in call.args if isinstance(word, ast.Constant)}
      if names and not any(word.arg == 'choices' for word in call.keywords):  # else it is no path
        seen |= names
        types = [ast.unparse(word.value) for word in call.keywords if word.arg == 'type']
        of_model = '--from' in names and file.name != 'export_tokens.py'  # which takes a corpus
        of_path = {'paths.flag', 'paths.bucket_flag', 'replaced_file', 'results.appended_file'}
        expected = {'hub_names.flag'} if of_model else of_path
        assert len(types) == 1 and types[0] in expected, f'{file}:{call.lineno}: {names}'
  assert seen == FLAGS


def test_the_home_folder_in_sources_and_tokenizers(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'a.txt').write_text('one two')
  [unit] = documents.units(['text:~/a.txt'], '')
  assert unit.path == f'{tmp_path}/a.txt'
  for spec in ('bpe:~/nothing', '~/nothing'):
    with pytest.raises(InputError, match=str(tmp_path)):
      loading.load(spec)
