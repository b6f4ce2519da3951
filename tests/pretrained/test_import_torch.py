"""`pytorch_model.bin` in folders of transformers: the bits, the logits, the tokenizer, and refusals."""

import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of
from foreign_weights import torch
from hf_files import write_folder
from safetensors.torch import load_file
from torch_models import logits_of, opened, tensors, tokens_for, twin

import gptjax
from gptjax.data.tokenizers import characters, hf_tokenizer
from gptjax.errors import InputError
from gptjax.pretrained import torch_files
from gptjax.pretrained.importing import import_weights

KINDS = [('gpt2', dict(n_head=3, n_embd=36)),
         ('gpt2', dict(n_inner=20, activation_function='gelu', tie_word_embeddings=False)),
         ('openai-gpt', dict(n_head=3, n_embd=36)), ('llama', {}), ('qwen3', dict(tie_word_embeddings=True))]
BIN, INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'


def write(judge, folder, shards=1, **save):
  """A folder as transformers 4 wrote it: config.json and pytorch_model.bin, or shards with their index."""
  folder.mkdir()
  judge.config.save_pretrained(folder)
  state, placed = judge.state_dict(), {}
  if shards == 1:
    torch.save(state, folder / BIN, **save)
    return folder
  for shard in range(shards):
    file = f'pytorch_model-{shard + 1:05}-of-{shards:05}.bin'
    part = {name: tensor.clone() for i, (name, tensor) in enumerate(state.items()) if i % shards == shard}
    torch.save(part, folder / file, **save)
    placed |= dict.fromkeys(part, file)
  (folder / INDEX).write_text(json.dumps({'metadata': {'total_size': 1}, 'weight_map': placed}))
  return folder


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('kind, changes', KINDS)
@pytest.mark.parametrize('shards', [1, 3])
def test_logits_and_bits_are_those_of_transformers(tmp_path, kind, changes, shards):
  judge = twin(kind, **changes)
  import_weights(str(write(judge, tmp_path / 'in', shards)), str(tmp_path / 'out'))
  back = opened(tmp_path / 'out')
  expected, found = tensors(judge), tensors(back)
  assert type(back) is type(judge) and expected.keys() == found.keys()
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name])
  tokens = tokens_for(judge)
  with mesh_of():
    np.testing.assert_allclose(gptjax.load(tmp_path / 'out')[0](tokens), logits_of(judge, tokens), atol=1e-4)


@pytest.mark.parametrize('name', ['', BIN, 'shard', INDEX])
@pytest.mark.parametrize('old', [True, False])
def test_a_folder_is_given_itself_or_by_a_file_of_it(tmp_path, name, old):
  judge = twin('gpt2')
  shards = 3 if name in ('shard', INDEX) else 1
  folder = write(judge, tmp_path / 'in', shards, _use_new_zipfile_serialization=not old)
  name = 'pytorch_model-00002-of-00003.bin' if name == 'shard' else name
  import_weights(str(folder / name), str(tmp_path / 'out'))
  np.testing.assert_array_equal(tensors(opened(tmp_path / 'out'))['transformer.wte.weight'],
                                tensors(judge)['transformer.wte.weight'])


def with_pickle(folder):
  """The folder of `hf_files`, whose weights are in pytorch_model.bin; with masks as older versions saved."""
  write_folder(folder)
  state = load_file(folder / 'model.safetensors')
  masks = {'h.0.attn.bias': torch.ones(1, 1, 16, 16).byte(), 'h.0.attn.masked_bias': torch.tensor(-1e4)}
  torch.save({**state, **masks}, folder / BIN)
  (folder / 'model.safetensors').unlink()
  return folder


def test_the_tokenizer_of_the_folder_comes_along(tmp_path):
  import_weights(str(with_pickle(tmp_path / 'in')), str(tmp_path / 'out'))
  model, tokenizer = gptjax.load(tmp_path / 'out')
  assert tokenizer.digest == hf_tokenizer.load_folder(tmp_path / 'in').digest
  assert model.n_vocab == tokenizer.n_vocab and tokenizer.eos_ids == (model.n_vocab - 1,)


def test_a_given_tokenizer_takes_precedence(tmp_path):
  source = with_pickle(tmp_path / 'in')
  rows = json.loads((source / 'config.json').read_text())['vocab_size']
  made = characters.train_characters([''.join(map(chr, range(0x4e00, 0x4e00 + rows - 1)))])  # and an end
  made.save(tmp_path / 'chars')
  import_weights(str(source), str(tmp_path / 'out'), f'char:{tmp_path}/chars')
  model, tokenizer = gptjax.load(tmp_path / 'out')
  assert tokenizer.digest == made.digest and model.n_vocab == made.n_vocab


def changed(**changes):
  """A change of the tensors; None: absent."""
  def change(folder):
    state = {**torch.load(folder / BIN, weights_only=True),
             **{name.replace('__', '.'): value for name, value in changes.items()}}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, folder / BIN)
  return change


def config(**changes):
  def change(folder):
    values = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**values, **changes}))
  return change


def cut(length):
  return lambda folder: (folder / BIN).write_bytes((folder / BIN).read_bytes()[:length])


def compressed(folder):
  """As small as a file can be that has all the numbers that it names."""
  with zipfile.ZipFile(folder / BIN) as file:
    parts = {name: file.read(name) for name in file.namelist()}
  with zipfile.ZipFile(folder / BIN, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, content in parts.items():
      file.writestr(name, content)


@pytest.mark.parametrize('damage, says', [
  (changed(h__0__mlp__c_fc__weight=None), 'the tensor h.0.mlp.c_fc.weight [8, 32] is missing'),
  (changed(h__0__mlp__c_fc__weight=torch.ones(8, 31)), 'c_fc.weight is [8, 31], but .* require [8, 32]'),
  (changed(h__9__ln_1__bias=torch.ones(8)), 'the tensor h.9.ln_1.bias [8] is not part of the model'),
  (changed(score__weight=torch.ones(2, 8)), 'the tensor score.weight [2, 8] is not part of the model: only'),
  (changed(lm_head__weight=torch.ones(264, 8)), 'lm_head.weight differs from wte.weight'),
  (changed(state_dict={'a': torch.ones(1)}), "'state_dict' is a dict, not a tensor"),
  (config(model_type='bloom'), "model_type = 'bloom' is not supported, only gpt2, openai-gpt"),
  (config(n_layer=2), 'the tensor h.1.attn.c_attn'),
  (lambda folder: (folder / 'config.json').unlink(), 'has weights but no config.json: add the one'),
  (lambda folder: torch.save([torch.ones(1)], folder / BIN), 'has a list, not a dict of tensors'),
  (lambda folder: torch.save(torch.nn.Linear(1, 1), folder / BIN), 'has an object of torch.nn.modules'),
  (lambda folder: (folder / BIN).write_text('version https://git-lfs.github.com/spec/v1\n'), 'is a Git LFS'),
  (cut(0), 'is not a file of torch.save, or is damaged or cut short'), (cut(100), 'is damaged or cut short'),
  (lambda folder: (folder / BIN).write_bytes(b'\x06\x01'), 'is damaged or cut short: get another copy'),
  (cut(-1), 'is damaged or cut short'), (cut(-5000), 'is damaged or cut short'),
  (compressed, 'is not tensors of torch.save: pytorch_model/data.pkl in it is compressed')])
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, damage, says):
  folder = with_pickle(tmp_path / 'in')
  damage(folder)
  with pytest.raises(InputError, match=re.escape(says).replace(r'\.\*', '.*')) as refused:
    import_weights(str(folder), str(tmp_path / 'out'))
  assert 'weights_only' not in str(refused.value)  # PyTorch's advice to read a pickle without protection
  assert '\n' not in str(refused.value) and [path.name for path in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('zipped', [True, False])
def test_any_damage_is_refused_in_one_line_or_changes_numbers_only(tmp_path, zipped):
  """Bytes in the pickle, in the directory of the zip and in the headers are replaced or removed."""
  state = twin('gpt2', n_layer=1).state_dict()
  torch.save(state, tmp_path / BIN, _use_new_zipfile_serialization=zipped)
  content, random, refused = (tmp_path / BIN).read_bytes(), np.random.default_rng(0), 0
  for _ in range(150):
    damaged = bytearray(content)
    first, last, anywhere = random.integers(2500), random.integers(-2500, 0), random.integers(len(content))
    position = int(random.choice([first, last, anywhere]))
    damaged[position] = random.integers(256)
    if random.random() < 0.3:
      del damaged[position]
    (tmp_path / BIN).write_bytes(damaged)
    try:
      for _, _, tensor in torch_files.entries(tmp_path / BIN, torch_files.read(tmp_path / BIN)):
        tensor.read(tuple(map(slice, tensor.shape)))
    except InputError as error:
      assert '\n' not in str(error)
      refused += 1
  assert refused > 30


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('version, says', [
  (None, "needs PyTorch: pip install 'gptjax[import]'"),
  ('2.5.1+cu124', r"PyTorch 2.5.1+cu124 can run code .* \(CVE-2025-32434\): pip install 'gptjax[import]'")])
def test_without_a_safe_pytorch_one_line_says_what_to_install(tmp_path, version, says):
  folder = with_pickle(tmp_path / 'in')
  stub = 'None' if version is None else f'types.SimpleNamespace(__version__={version!r})'
  code = f'import sys, types\nsys.modules["torch"] = {stub}\nfrom gptjax.pretrained.__main__ import main\n' \
         'from gptjax.command import run\nrun.run(main, "import")'
  done = subprocess.run([sys.executable, '-c', code, 'import', folder, tmp_path / 'out'], cwd=ROOT,
                        env=ENVIRONMENT, capture_output=True, text=True)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
  assert re.search(says.replace('+', r'\+').replace('[', r'\['), done.stderr), done.stderr
