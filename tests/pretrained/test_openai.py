"""OpenAI's own files, written here in their layouts: the logits of transformers; tokenizers; damage."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from conftest import SHARED, mesh_of
from torch_models import logits_of, tensors, tokens_for, twin

import gptjax
from gptjax.data.corpus import pipeline
from gptjax.data.tokenizers import loading


def openai_name(name):
  """`transformer.h.0.ln_1.weight` -> `h0/ln_1/g`, as the released code calls it."""
  *parts, kind = name.removeprefix('transformer.').replace('h.', 'h').split('.')
  if parts[-1] in ('wte', 'wpe'):
    return parts[-1]
  kind = 'b' if kind == 'bias' else 'g' if parts[-1].startswith('ln_') else 'w'
  return '/'.join((*parts, kind))


def as_convolution(value, name):
  return value[None] if name.endswith('/w') else value


def write_gpt2(folder, model, **hparams):
  """A TensorFlow checkpoint like those that OpenAI released; returns {name: array} as written."""
  tf = pipeline.import_tensorflow()
  folder.mkdir(exist_ok=True)
  c = model.config
  sizes = dict(n_vocab=c.vocab_size, n_ctx=c.n_positions, n_embd=c.n_embd, n_head=c.n_head, n_layer=c.n_layer)
  (folder / 'hparams.json').write_text(json.dumps({**sizes, **hparams}))
  (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt"\n')
  (folder / 'model.ckpt.meta').write_bytes(b'\n\x00')
  values = {f'model/{openai_name(name)}': as_convolution(value, openai_name(name))
            for name, value in tensors(model).items()}
  save_checkpoint(tf, folder, values)
  return values


def save_checkpoint(tf, folder, values):
  tf.raw_ops.SaveV2(prefix=str(folder / 'model.ckpt'), tensor_names=list(values),
                    shape_and_slices=[''] * len(values), tensors=list(values.values()))


BLOCK = [f'{part}.{kind}' for part in ('attn.c_attn', 'attn.c_proj', 'ln_1', 'mlp.c_fc', 'mlp.c_proj', 'ln_2')
         for kind in ('weight', 'bias')]


def write_gpt1(folder, model):
  """`params_shapes.json` and ten `.npy` whose cuts fall where they may, as OpenAI released them."""
  folder.mkdir(exist_ok=True)
  found = tensors(model)
  names = ['transformer.positions_embed.weight', 'transformer.tokens_embed.weight',
           *(f'transformer.h.{i}.{name}' for i in range(model.config.n_layer) for name in BLOCK)]
  assert set(names) == set(found)
  values = [found[name][None] if 'mlp' in name or 'attn' in name else found[name] for name in names]
  values = [value[0] if value.ndim == 2 and value.shape[0] == 1 else value for value in values]  # biases
  (folder / 'params_shapes.json').write_text(json.dumps([list(value.shape) for value in values]))
  flat = np.concatenate([value.reshape(-1) for value in values])
  for i, piece in enumerate(np.array_split(flat, 10)):
    np.save(folder / f'params_{i}.npy', piece)


def check_logits(theirs, folder, **sizes):
  tokens = tokens_for(theirs, batch=4)
  with mesh_of(**sizes):
    ours, tokenizer = gptjax.load(folder)
    np.testing.assert_allclose(ours(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
  return ours, tokenizer


@pytest.mark.parametrize('changes', [{}, dict(n_layer=1, n_head=5, n_embd=40, n_positions=17)])
def test_gpt2s_tensorflow_checkpoint_gives_the_logits_of_transformers(tmp_path, changes):
  theirs = twin('gpt2', **changes)
  write_gpt2(tmp_path, theirs)
  assert {'model.ckpt.index', 'model.ckpt.data-00000-of-00001'} <= set(os.listdir(tmp_path))
  _, tokenizer = check_logits(theirs, tmp_path)
  assert tokenizer is None


@pytest.mark.parametrize('changes', [
  dict(n_head=2, n_embd=128, n_layer=3), dict(n_head=1, n_embd=64, n_positions=9, vocab_size=300)])
def test_gpt1s_arrays_give_the_logits_of_transformers(tmp_path, changes):
  theirs = twin('openai-gpt', **changes)
  write_gpt1(tmp_path, theirs)
  _, tokenizer = check_logits(theirs, tmp_path)
  assert tokenizer is None


def test_both_are_read_onto_eight_devices(tmp_path):
  theirs = twin('gpt2')
  write_gpt2(tmp_path / 'two', theirs)
  check_logits(theirs, tmp_path / 'two', fsdp=2, tensor=4)
  theirs = twin('openai-gpt', n_head=2, n_embd=128)
  write_gpt1(tmp_path / 'one', theirs)
  check_logits(theirs, tmp_path / 'one', data=2, fsdp=2, tensor=2)


def test_the_released_tokenizers_come_along(tmp_path):
  if not SHARED.is_dir():
    pytest.skip(f'needs the vocabularies in {SHARED}')
  write_gpt2(tmp_path / 'two', twin('gpt2', vocab_size=50257))
  write_gpt1(tmp_path / 'one', twin('openai-gpt', vocab_size=40478, n_embd=64))
  for folder, kind in (('two', 'gpt2'), ('one', 'gpt1')):
    for file in (SHARED / 'bpe' / kind).iterdir():
      shutil.copy(file, tmp_path / folder)
    with mesh_of():
      _, tokenizer = gptjax.load(tmp_path / folder)
    assert tokenizer.digest == loading.load(f'{kind}:{SHARED}/bpe/{kind}').digest


def refused(folder, says):
  with mesh_of(), pytest.raises(ValueError, match='.*'.join(map(re.escape, says.split('.*')))) as error:
    gptjax.load(folder)
  assert '\n' not in str(error.value) and str(folder) in str(error.value)


DATA, INDEX = 'model.ckpt.data-00000-of-00001', 'model.ckpt.index'


def flip(path, at):
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize('damage, says', [
  (lambda f: (f / 'hparams.json').write_text('{'), 'hparams.json is not JSON'),
  (lambda f: (f / 'hparams.json').write_text('{"n_vocab": 61}'), 'n_layer is missing'),
  (lambda f: (f / INDEX).unlink(), 'model.ckpt is not a TensorFlow checkpoint'),
  (lambda f: (f / INDEX).write_bytes(b'junk'), 'model.ckpt is not a TensorFlow checkpoint'),
  (lambda f: (f / DATA).unlink(), 'is damaged or cut short'),
  (lambda f: (f / DATA).write_bytes((f / DATA).read_bytes()[:1000]), 'is damaged or cut short'),
  (lambda f: flip(f / DATA, 5000), 'is damaged or cut short')])
def test_a_damaged_tensorflow_checkpoint_is_refused(tmp_path, damage, says):
  write_gpt2(tmp_path, twin('gpt2'))
  damage(tmp_path)
  refused(tmp_path, says)


@pytest.mark.parametrize('change, says', [
  (lambda v: {k: x for k, x in v.items() if k != 'model/h1/mlp/c_fc/w'},
   'the tensor model/h1/mlp/c_fc/w [32, 128] is missing'),
  (lambda v: {**v, 'model/h1/mlp/c_fc/w': np.zeros((1, 128, 32), 'f4')},
   'model/h1/mlp/c_fc/w is [128, 32], but .* require [32, 128]'),
  (lambda v: {**v, 'model/extra': np.zeros(3, 'f4')}, 'the tensor model/extra [3] is not part of the model'),
  (lambda v: {**v, 'model/ln_f/b': np.zeros(32, 'f8')}, 'its tensors are not all float32')])
def test_tensors_of_tensorflow_that_do_not_fit_are_named(tmp_path, change, says):
  values = write_gpt2(tmp_path, twin('gpt2'))
  save_checkpoint(pipeline.import_tensorflow(), tmp_path, change(values))
  refused(tmp_path, says)


def shapes(change):
  def damage(folder):
    path = folder / 'params_shapes.json'
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
  return damage


class Poison:
  """Would leave a file behind if it were ever unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


def cut(path):
  path.write_bytes(path.read_bytes()[:-4])


def poisoned(folder):
  content = io.BytesIO()
  np.save(content, np.array([Poison(str(folder / 'executed'))], object), allow_pickle=True)
  (folder / 'params_3.npy').write_bytes(content.getvalue())


@pytest.mark.parametrize('damage, says', [
  (lambda f: (f / 'params_4.npy').unlink(), 'params_4.npy: No such file'),
  (lambda f: cut(f / 'params_4.npy'), 'params_4.npy is damaged'),
  (lambda f: (f / 'params_4.npy').write_bytes(b''), 'params_4.npy is damaged'),
  (lambda f: np.save(f / 'params_4.npy', np.zeros(7)), 'params_4.npy is float64[7], not a float32 vector'),
  (lambda f: np.save(f / 'params_4.npy', np.zeros(7, 'f4')), 'numbers, but params_shapes.json requires'),
  (lambda f: (f / 'params_shapes.json').write_text('[[2'), 'params_shapes.json is not JSON'),
  (lambda f: (f / 'params_shapes.json').write_text('{}'), 'params_shapes.json: its content is {}, not list'),
  (shapes(lambda s: s[:-1]), 'is not a list of the shapes of GPT-1'),
  (shapes(lambda s: [*s[:4], [1, 'x', 64], *s[5:]]), 'is not a list of the shapes of GPT-1'),
  (shapes(lambda s: [*s[:8], [1, 256, 64], *s[9:]]), 'h0/mlp/c_fc/w is [256, 64], but .* require [64, 256]'),
  (poisoned, 'params_3.npy is damaged or truncated, or not an array')])
def test_damaged_arrays_of_gpt1_are_refused_and_never_unpickled(tmp_path, damage, says):
  write_gpt1(tmp_path, twin('openai-gpt', n_head=1, n_embd=64))
  damage(tmp_path)
  refused(tmp_path, says)
  assert not (tmp_path / 'executed').exists()


def test_heads_of_gpt1_are_of_size_64_or_it_is_refused(tmp_path):
  write_gpt1(tmp_path, twin('openai-gpt'))
  refused(tmp_path, 'width 32 is not a multiple of the head size of GPT-1, 64')
