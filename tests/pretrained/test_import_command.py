"""The command: paths relative to any folder, what it prints, what it leaves when it is stopped or refused."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ENVIRONMENT, ROOT
from foreign_weights import checkpoint, llmc_file, nanogpt, torch
from torch_models import opened, twin

from gptjax.errors import InputError
from gptjax.pretrained import __main__ as command

COMMAND = [sys.executable, '-m', 'gptjax', 'import']


def run(folder, *arguments):
  return subprocess.run([*COMMAND, *arguments], cwd=folder, env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)},
                        capture_output=True, text=True, timeout=120)


@pytest.mark.ci
@pytest.mark.parametrize('source', ['out-shakespeare', 'out-shakespeare/ckpt.pt'])
def test_from_relative_paths_to_a_folder_that_loads(tmp_path, source):
  (tmp_path / 'out-shakespeare').mkdir()
  torch.save(checkpoint(nanogpt()), tmp_path / 'out-shakespeare' / 'ckpt.pt')
  done = run(tmp_path, source, 'new/imported')
  assert done.returncode == 0
  assert done.stdout == f'{tmp_path}/new/imported: 2 layers of width 36, no tokenizer\n'
  assert 'import again with --tokenizer=char:DIR' in done.stderr and len(done.stderr.splitlines()) == 1
  assert opened(tmp_path / 'new' / 'imported').config.n_layer == 2
  assert sorted(path.name for path in tmp_path.iterdir()) == ['new', 'out-shakespeare']


def files(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder' / 'notes.txt').write_text('mine')
  (tmp_path / 'safe').mkdir()
  (tmp_path / 'safe' / 'model.safetensors').write_bytes(b'x')
  (tmp_path / 'logs').mkdir()
  for step in (10, 20):
    (tmp_path / 'logs' / f'model_000{step}.bin').write_bytes(b'x')
  (tmp_path / 'model.bin').write_bytes(llmc_file(twin('gpt2')))
  torch.save(twin('gpt2').state_dict(), tmp_path / 'state.pt')


@pytest.mark.parametrize('arguments, says', [
  (['absent', 'out'], 'absent is not a file or a folder with files: give ckpt.pt'),
  (['folder', 'out'], 'folder has neither ckpt.pt nor pytorch_model.bin: give a file'),
  (['logs', 'out'], 'give one of its files, like .*logs/model_00020.bin'),
  (['safe', 'out'], 'safe has safetensors, which need no import'),
  (['safe/model.safetensors', 'out'], 'is in safetensors, which needs no import'),
  (['folder/notes.txt', 'out'], 'is not a file of torch.save, or is damaged'),
  (['state.pt', 'out'], 'is not a checkpoint of nanoGPT.* give their folder, which has config.json'),
  (['model.bin', 'folder'], 'folder exists: give the name of a new folder'),
  (['model.bin', 'model.bin'], 'model.bin exists: give the name of a new folder'),
  (['model.bin', 'model.bin/out'], 'model.bin/out cannot be written: '),
  (['model.bin', 'out', '--tokenizer=absent'], "tokenizer 'absent' is none of"),
  (['model.bin', 'out', '--activation_function=gelu'], 'is for checkpoints of nanoGPT')])
def test_wrong_arguments_are_refused_in_one_line(tmp_path, monkeypatch, arguments, says):
  files(tmp_path)
  monkeypatch.chdir(tmp_path)
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(InputError, match=says) as refused:
    command.main(['import', *arguments])
  assert '\n' not in str(refused.value) and sorted(tmp_path.rglob('*')) == before


@pytest.mark.ci
def test_an_interrupted_import_leaves_no_folder_and_works_when_repeated(tmp_path):
  """Ctrl-C while the weights are written, which take a while here."""
  judge = twin('gpt2', n_embd=512, n_head=8, n_layer=12)
  (tmp_path / 'model.bin').write_bytes(llmc_file(judge))
  process = subprocess.Popen([*COMMAND, 'model.bin', 'out'], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                             env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)}, start_new_session=True)
  while not list(tmp_path.rglob('model.safetensors.*.new')) and process.poll() is None:
    time.sleep(0.001)
  process.send_signal(signal.SIGINT)
  _, said = process.communicate(timeout=60)
  if process.returncode == 0:
    pytest.skip('it was faster than the signal')
  assert process.returncode == 130 and said.splitlines()[-1] == 'import: Ctrl-C: stopped'
  assert not (tmp_path / 'out').exists()
  done = run(tmp_path, 'model.bin', 'out')
  assert done.returncode == 0, done.stderr
  assert sorted(os.listdir(tmp_path)) == ['model.bin', 'out']
  assert opened(tmp_path / 'out').config.n_layer == 12
