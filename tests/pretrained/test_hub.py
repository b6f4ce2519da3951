"""Models by their names on the Hugging Face Hub, from a local server: only what is asked for, only data."""

import os
import subprocess
import sys

import hf_files
import hub_server
import huggingface_hub
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT
from huggingface_hub import constants

import gptjax
from gptjax.errors import InputError
from gptjax.pretrained import hub as hub_module
from gptjax.pretrained import open_source
from gptjax.storage.files import hub_names

OTHERS = {'pytorch_model.bin': b'\x80\x04.', 'tf_model.h5': b'x', 'README.md': b'#', 'run.py': b'import os',
          'onnx/config.json': b'{}', 'model.fp16.safetensors': b'x', 'flax_model.msgpack': b'x'}
NEEDED = {'config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'vocab.json',
          'merges.txt'}
REPO = 'openai-community/gpt2'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = hf_files.write_folder(tmp_path_factory.mktemp('model') / 'gpt2')
  return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


def use_endpoint(monkeypatch, url):
  monkeypatch.setattr(constants, 'ENDPOINT', url)
  monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
                      url + '/{repo_id}/resolve/{revision}/{filename}')


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
  """A server with one model, and an empty cache; the current folder is empty, too."""
  with hub_server.serving() as served:
    served.add(REPO, files[1] | OTHERS)
    use_endpoint(monkeypatch, served.endpoint)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    yield served


def same_weights(model, other):
  tokens = np.arange(12, dtype=np.int32).reshape(1, 12)
  np.testing.assert_array_equal(model(tokens), other(tokens))


@pytest.mark.parametrize('name', ['gpt2', REPO, f'{REPO}@main', f'{REPO}@{hub_server.COMMIT}'])
def test_a_name_gives_the_model_and_fetches_only_weights_json_and_text(hub, files, name):
  model, tokenizer = gptjax.load(name)
  wanted, theirs = gptjax.load(files[0])
  same_weights(model, wanted)
  assert tokenizer.digest == theirs.digest
  assert hub.served == NEEDED and files[1].keys() == NEEDED


def test_the_second_time_nothing_is_downloaded_and_without_a_server_the_cache_is_used(hub, monkeypatch):
  first = open_source('gpt2')
  hub.served.clear()
  assert open_source('gpt2').folder == first.folder and not hub.served
  use_endpoint(monkeypatch, 'http://127.0.0.1:9')
  assert open_source('gpt2').folder == first.folder
  assert hub_server.COMMIT in str(first.folder), 'the log of a run shows the commit'


def test_a_revision_is_another_model(hub, tmp_path):
  other = hf_files.write_folder(tmp_path / 'older', n_vocab=270)
  hub.add(REPO, {path.name: path.read_bytes() for path in other.iterdir()}, hub_server.OLDER, ('v1', 'pr/2'))
  assert open_source(f'{REPO}@v1').fields['n_vocab'] == open_source('gpt2@pr/2').fields['n_vocab'] == 270
  assert open_source(REPO).fields['n_vocab'] == 264


def test_a_folder_wins_over_a_name_and_a_path_is_never_looked_up(hub, files, tmp_path):
  (tmp_path / 'here' / 'gpt2').symlink_to(files[0])
  assert open_source('gpt2').folder == tmp_path / 'here' / 'gpt2'
  (tmp_path / 'here' / 'runs').mkdir()
  for path in ('runs/gpt2', './gpt2-xl', '/openai-community/gpt2', '~/gpt2', 'gpt3', '../gpt2',
               tmp_path / 'x'):
    with pytest.raises(InputError, match='is not a folder'):
      open_source(path)
  assert not hub.asked


@pytest.mark.parametrize('name, says', [
  ('nobody/nothing', r'nobody/nothing is neither a folder of this machine nor a public model on http://'),
  (f'{REPO}@v9', f"{REPO} has no revision 'v9'"),
  ('meta/closed', 'meta/closed needs permission: accept its terms on http://.*/meta/closed, and set HF_TOK'),
  ('some/pickles', 'some/pickles has no weights')])
def test_what_cannot_be_had_is_one_line(hub, name, says):
  hub.gated.add('meta/closed')
  hub.add('some/pickles', {'config.json': b'{}', 'pytorch_model.bin': b'\x80\x04.'})
  with pytest.raises(InputError, match=says) as raised:
    open_source(name)
  assert '\n' not in str(raised.value)


def test_without_a_network_and_a_cache_one_line_says_what_to_do(hub, monkeypatch, tmp_path):
  use_endpoint(monkeypatch, 'http://127.0.0.1:9')
  with pytest.raises(InputError) as raised:
    gptjax.load('gpt2')
  said = str(raised.value)
  assert said.startswith('openai-community/gpt2 is not a folder of this machine, is not in the cache (')
  assert str(tmp_path / 'cache') in said and 'connect to the network, or give the folder' in said
  assert '\n' not in said


def test_a_bug_in_the_download_is_not_hidden(hub, monkeypatch):
  def broken(*arguments, **options):
    raise KeyError('x')
  monkeypatch.setattr(huggingface_hub, 'snapshot_download', broken)
  with pytest.raises(KeyError):
    hub_module.download(hub_names.parse('gpt2'))


@pytest.mark.ci
def test_init_from_and_from_take_a_name_in_commands(hub, tmp_path, corpus_folder):
  env = {**ENVIRONMENT, 'HF_ENDPOINT': hub.endpoint, 'HF_HOME': str(tmp_path / 'home'),
         'PYTHONPATH': str(ROOT)}
  for name in ('HF_HUB_CACHE', 'HF_HUB_OFFLINE'):
    env.pop(name, None)
  run = lambda *line: subprocess.run([sys.executable, '-m', *line], cwd=os.getcwd(), env=env,
                                     capture_output=True, text=True, timeout=200)
  done = run('gptjax.evaluate.score', '--from=gpt2', '--text=the blue stone', '--compilation_cache=')
  assert done.returncode == 0 and 'bits/byte' in done.stdout, done.stderr
  done = run('gptjax.main', f'--config={ROOT}/configs/quickstart.py', f'--workdir={tmp_path}/run',
             '--config.init_from=gpt2', f'--config.data.corpus={corpus_folder}', '--config.data.source=')
  assert done.returncode == 2, done.stderr  # the corpus has another tokenizer
  assert f'snapshots/{hub_server.COMMIT}' in done.stderr and 'config.model.n_vocab = 264' in done.stderr
