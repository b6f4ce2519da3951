"""Checkpoints of nanoGPT: the function of an independent model in PyTorch, its bits, and refusals by name."""

import os
import re

import numpy as np
import pytest
from conftest import mesh_of
from foreign_weights import SIZES, checkpoint, nanogpt, nanogpt_logits, torch
from torch_models import logits_of, opened

import gptjax
from gptjax.data.tokenizers import byte_bpe, characters
from gptjax.errors import InputError
from gptjax.pretrained.importing import import_weights

TOKENS = np.random.default_rng(0).integers(0, 61, (3, 24), dtype=np.int32)


def imported(content, tmp_path, *arguments, **save):
  """The folder of an imported checkpoint."""
  torch.save(content, tmp_path / 'ckpt.pt', **save)
  import_weights(str(tmp_path / 'ckpt.pt'), str(tmp_path / 'out'), *arguments)
  return tmp_path / 'out'


def require_logits(folder, expected):
  """Of gptjax and of transformers."""
  with mesh_of():
    model, _ = gptjax.load(folder)
    np.testing.assert_allclose(model(TOKENS), expected, atol=1e-4)
  np.testing.assert_allclose(logits_of(opened(folder), TOKENS), expected, atol=1e-4)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('vocab', [61, 64, 128])
@pytest.mark.parametrize('bias', [True, False])
def test_logits_are_those_of_the_model_that_wrote_it(tmp_path, vocab, bias):
  judge = nanogpt(vocab_size=vocab, bias=bias)
  require_logits(imported(checkpoint(judge), tmp_path), nanogpt_logits(judge, TOKENS))


def test_every_bit_of_a_weight_is_kept(tmp_path):
  judge = nanogpt(bias=False)
  folder = imported(checkpoint(judge), tmp_path)
  found, expected = opened(folder).state_dict(), judge.state_dict()
  assert {name for name in found if name not in expected} == {
    name.replace('weight', 'bias') for name in expected if '.h.' in name or '.ln_f.' in name}
  for name, tensor in found.items():
    if name not in expected:
      assert name.endswith('.bias') and not tensor.any()
      continue
    weight = expected[name]
    transposed = weight.ndim == 2 and '.h.' in name
    np.testing.assert_array_equal((tensor.T if transposed else tensor).numpy(), weight.numpy())


@pytest.mark.parametrize('change, gelu, activation', [
  ({}, 'none', ''), ({}, 'tanh', 'gelu_new'),
  ({'bias': None}, 'tanh', ''), ({'bias': None}, 'none', 'gelu')],
  ids=['present', 'before the exact GELU', 'before the option bias', 'as the flag says'])
def test_the_activation_is_that_of_the_version(tmp_path, change, gelu, activation):
  judge = nanogpt(gelu)
  with torch.no_grad():  # so that the two forms differ by more than the tolerance
    for block in judge.transformer['h']:
      block.mlp['c_proj'].weight.mul_(8)
  args = {name: value for name, value in SIZES.items() if change.get(name, '') is not None}
  folder = imported(checkpoint(judge, model_args=args), tmp_path, '', activation)
  require_logits(folder, nanogpt_logits(judge, TOKENS))
  other = nanogpt({'none': 'tanh', 'tanh': 'none'}[gelu])
  other.load_state_dict(judge.state_dict())
  assert np.abs(nanogpt_logits(other, TOKENS) - nanogpt_logits(judge, TOKENS)).max() > 3e-4


@pytest.mark.parametrize('rename', [
  lambda name: f'_orig_mod.{name}', lambda name: f'module._orig_mod.{name}',
  lambda name: re.sub(r'(\.h\.\d+)\.', r'\1._orig_mod.', name)],
  ids=['compiled', 'compiled and parallel', 'blocks compiled'])
def test_prefixes_of_wrappers_are_removed(tmp_path, rename):
  judge = nanogpt()
  state = {rename(name): tensor for name, tensor in judge.state_dict().items()}
  require_logits(imported(checkpoint(judge, model=state), tmp_path), nanogpt_logits(judge, TOKENS))


def test_masks_of_old_versions_of_pytorch_are_left_out(tmp_path):
  judge = nanogpt()
  masks = {f'transformer.h.{i}.attn.bias': torch.ones(1, 1, 24, 24).tril() for i in range(2)}
  folder = imported(checkpoint(judge, model={**judge.state_dict(), **masks}), tmp_path)
  require_logits(folder, nanogpt_logits(judge, TOKENS))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('head', ['copy', 'NaN', 'absent', 'untied'])
def test_the_head_is_tied_if_it_is_a_copy_of_the_embedding(tmp_path, head, capsys):
  judge = nanogpt()
  if head == 'NaN':
    judge.lm_head.weight.data[3, 5] = torch.nan
  state = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
  if head == 'untied':
    judge.lm_head.weight = torch.nn.Parameter(state['lm_head.weight'] * 2 + 1)
    state = judge.state_dict()
  elif head == 'absent':
    del state['lm_head.weight']
  folder = imported(checkpoint(judge, model=state), tmp_path)
  assert opened(folder).config.tie_word_embeddings == (head != 'untied')
  assert ('NaN or infinite values, in wte:' in capsys.readouterr().err) == (head == 'NaN')
  if head == 'NaN':
    assert np.isnan(opened(folder).transformer.wte.weight.detach().numpy()[3, 5])
  else:
    require_logits(folder, nanogpt_logits(judge, TOKENS))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_narrow_weights_become_the_same_numbers_in_float32(tmp_path, dtype):
  judge = nanogpt().to(dtype)
  folder = imported(checkpoint(judge), tmp_path)
  found = opened(folder).state_dict()
  assert {tensor.dtype for tensor in found.values()} == {torch.float32}
  np.testing.assert_array_equal(found['transformer.wte.weight'], judge.lm_head.weight.detach().float())
  require_logits(folder, nanogpt_logits(judge.float(), TOKENS))


def test_a_file_of_the_old_format_of_pytorch_is_read(tmp_path):
  judge = nanogpt()
  folder = imported(checkpoint(judge), tmp_path, _use_new_zipfile_serialization=False)
  require_logits(folder, nanogpt_logits(judge, TOKENS))


def test_the_entries_of_the_tokenizer_are_left_of_a_padded_vocabulary(tmp_path):
  byte_bpe.train_bpe(['the blue stone never sings of rain'], 264).save(tmp_path / 'bpe')
  judge = nanogpt(vocab_size=320)
  folder = imported(checkpoint(judge), tmp_path, f'bpe:{tmp_path}/bpe')
  require_logits(folder, nanogpt_logits(judge, TOKENS)[..., :264])
  model, tokenizer = gptjax.load(folder)
  assert model.n_vocab == tokenizer.n_vocab == 264 and tokenizer.encode('the').tolist()
  assert opened(folder).config.eos_token_id == 263


def test_characters_of_another_text_are_refused(tmp_path):
  tokenizer = characters.train_characters(['another text'])
  tokenizer.save(tmp_path / 'chars')
  for rows in (tokenizer.n_characters - 1, tokenizer.n_characters + 2):
    with pytest.raises(InputError, match=f'characters, and the model {rows} entries'):
      imported(checkpoint(nanogpt(vocab_size=rows)), tmp_path, f'char:{tmp_path}/chars')


def test_nanogpts_characters_have_no_end_of_text(tmp_path):
  text = 'all the characters of nanoGPT: 1, 2, 3!'
  tokenizer = characters.train_characters([text])
  tokenizer.save(tmp_path / 'chars')
  judge = nanogpt(vocab_size=tokenizer.n_characters)
  folder = imported(checkpoint(judge), tmp_path, f'char:{tmp_path}/chars')
  model, found = gptjax.load(folder)
  ids = {c: i for i, c in enumerate(sorted(set(text)))}  # nanoGPT's prepare.py
  assert found.encode('the 3').tolist() == [ids[c] for c in 'the 3']
  assert model.n_vocab == found.n_vocab == len(ids) and found.end_of_text is None
  assert opened(folder).config.eos_token_id is None


class Hostile:
  """Would leave a file behind if it were unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


def tensor(value, name='h.1.mlp.c_fc.weight'):
  """A change of a checkpoint: another tensor; None: it is absent."""
  tensors = {**nanogpt().state_dict(), f'transformer.{name}': value}
  return {'model': {name: value for name, value in tensors.items() if value is not None}}


def args(**changes):
  """A change of a checkpoint: other sizes or options; None: absent."""
  return {'model_args': {name: value for name, value in {**SIZES, **changes}.items() if value is not None}}


ZEROS = torch.zeros(144, 36)


@pytest.mark.parametrize('changes, says', [
  (tensor(None), 'the tensor h.1.mlp.c_fc.weight [144, 36] is missing'),
  (tensor(ZEROS[:100]), 'the tensor h.1.mlp.c_fc.weight is [100, 36], but .* require [144, 36]'),
  (tensor(ZEROS[0]), 'the tensor h.1.mlp.c_fc.weight is [36], but .* require [144, 36]'),
  (tensor(None, 'h.1.mlp.c_fc.bias'), 'the tensor h.1.mlp.c_fc.bias [144] is missing'),
  (tensor(ZEROS[0], 'h.1.mlp.gate'), 'the tensor h.1.mlp.gate [36] is not part of the model'),
  (tensor(ZEROS[0, 0], 'wte.weight'), 'the tensor wte.weight is [], but .* require [61, 36]'),
  (tensor(ZEROS.int()), 'c_fc.weight is of type torch.int32, not one of F32, F16, BF16'),
  (tensor(ZEROS.double()), 'c_fc.weight is of type torch.float64'),
  (tensor(ZEROS.to_sparse()), 'c_fc.weight is torch.sparse_coo on cpu'),
  (tensor(ZEROS.to('meta')), 'c_fc.weight is torch.strided on meta'),
  (tensor(ZEROS[:1, :1].expand(14400, 3600)), 'bytes, but the file only .* as copies'),
  (tensor([1.0]), "'transformer.h.1.mlp.c_fc.weight' is a list, not a tensor"),
  (args(n_layer=3), 'the tensor h.2.attn.c_attn'), (args(n_layer=1), 'is not part of the model'),
  (args(n_layer=10**9), 'n_layer = 1000000000 needs 12 tensors for each layer'),
  (args(vocab_size=10**12), 'vocab_size'), (args(n_head=5), 'n_embd = 36 is not divisible by n_head = 5'),
  (args(n_head=None), 'model_args: n_head is missing'), (args(n_embd='36'), "model_args: n_embd is '36'"),
  (args(bias=1), 'model_args has bias = 1: it must be True or False'),
  (args(bias=False, dropout=2.0), 'model_args: dropout = 2.0 must be'),
  (args(block_size=25), 'the tensor wpe.weight is [24, 36], but .* require [25, 36]'),
  (args(n_kv_head=1, rope=True), "model_args has 'n_kv_head', 'rope', which nanoGPT does not"),
  ({'model_args': {'dim': 288, 'n_layers': 6}}, "model_args has 'dim', 'n_layers'.* is of another model"),
  ({'model_args': None}, 'has no model_args, which have the sizes'),
  ({'model': torch.ones(3)}, 'is not a checkpoint of nanoGPT'),
  ({'config': torch.nn.Linear(1, 1)}, 'has an object of torch.nn.modules.linear.Linear, and reading')])
def test_what_is_not_a_model_of_nanogpt_is_refused_in_one_line(tmp_path, changes, says):
  with pytest.raises(InputError, match=re.escape(says).replace(r'\.\*', '.*')) as refused:
    imported(checkpoint(nanogpt(), **changes), tmp_path)
  assert '\n' not in str(refused.value) and [path.name for path in tmp_path.iterdir()] == ['ckpt.pt']


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, zipped):
  hostile = checkpoint(nanogpt(), config=Hostile(str(tmp_path / 'executed')))
  with pytest.raises(InputError, match=r'has an object of posix\.mkdir, and reading objects can run code'):
    imported(hostile, tmp_path, _use_new_zipfile_serialization=zipped)
  assert [path.name for path in tmp_path.iterdir()] == ['ckpt.pt']
