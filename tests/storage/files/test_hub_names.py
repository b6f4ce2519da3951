"""Which texts are names on the Hugging Face Hub, and which are paths."""

from pathlib import Path

import pytest

from gptjax import defaults
from gptjax.config import resolve as configs
from gptjax.storage.files import hub_names


@pytest.mark.parametrize('text, repo, revision', [
  ('gpt2', 'openai-community/gpt2', None), ('gpt2-xl', 'openai-community/gpt2-xl', None),
  ('openai-gpt', 'openai-community/openai-gpt', None), ('distilgpt2@main', 'distilbert/distilgpt2', 'main'),
  ('EleutherAI/some-model.v1', 'EleutherAI/some-model.v1', None), ('a/b@refs/pr/1', 'a/b', 'refs/pr/1'),
  ('a_b/c', 'a_b/c', None)])
def test_names(text, repo, revision, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert hub_names.parse(text) == (repo, revision)
  assert hub_names.absolute(text) == text
  assert str(hub_names.parse(text)) == repo + f'@{revision}' * (revision is not None)


@pytest.mark.parametrize('text', [
  '', 'runs', 'gpt4', './gpt2', '/gpt2', '../gpt2', 'a/b/c', 'a/..', 'a/b@', '@main', 'a b/c', 'a/b@../x',
  '~/a', 'a/', '/a', 'a//b', '-a/b', 'a/b\n', 'gpt2\n', 'a/.b', 'a/b.', 'runs/quickstart', 'corpora/books',
  'a/b.safetensors', Path('gpt2'), Path('a/b')], ids=str)
def test_paths(text, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert hub_names.parse(text) is None
  assert not text or hub_names.absolute(text).startswith('/')


def test_what_exists_is_a_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert hub_names.parse('mine/a') and hub_names.parse('gpt2')
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'gpt2').symlink_to('nowhere')
  assert hub_names.parse('mine/a') is None and hub_names.parse('gpt2') is None
  config = defaults.get_config()
  config.init_from = 'openai-community/gpt2@main'
  configs.make_paths_absolute(config)
  assert config.init_from == 'openai-community/gpt2@main'
  config.init_from = 'mine/a'
  configs.make_paths_absolute(config)
  assert config.init_from == f'{tmp_path}/mine/a'
