"""Hugging Face folders in: PyTorch's logits, losses and gradients; every way to spell the files; bad ones."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of
from flax import nnx
from safetensors.numpy import load_file, save_file
from torch_models import SMALL, logits_of, tokens_for, torch, twin

import gptjax
from gptjax.pretrained.hf_weights import released_tensors, unstack_tensors
from gptjax.train.loss import next_token_loss

ODD = [('gpt2', dict(n_layer=3, n_head=5, n_embd=40, n_positions=17, vocab_size=61)),
       ('gpt2', dict(n_layer=1, n_head=1, n_embd=6, n_positions=3, vocab_size=130, n_inner=7)),
       ('gpt2', dict(n_positions=151, n_head=2, vocab_size=128, activation_function='gelu',
                     layer_norm_epsilon=1e-2, scale_attn_weights=False, tie_word_embeddings=False,
                     scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True)),
       ('gpt2', dict(activation_function='relu')),
       ('openai-gpt', dict(n_layer=3, n_head=5, n_embd=40, n_positions=17, vocab_size=61)),
       ('openai-gpt', dict(n_layer=1, n_head=1, n_embd=6, n_positions=70, layer_norm_epsilon=1e-2)),
       ('openai-gpt', dict(afn='silu', tie_word_embeddings=False)),
       ('llama', dict(rope_parameters={'rope_type': 'default', 'rope_theta': 500.0}, rms_norm_eps=1e-2)),
       ('llama', dict(num_hidden_layers=1, num_key_value_heads=6, tie_word_embeddings=True)),
       ('llama', dict(head_dim=8, num_key_value_heads=1, hidden_act='swish')),
       ('qwen3', dict(rope_parameters={'rope_type': 'default', 'rope_theta': 500.0}, rms_norm_eps=1e-2)),
       ('qwen3', dict(num_attention_heads=5, num_key_value_heads=5, tie_word_embeddings=True))]


def saved(folder, kind='gpt2', **changes):
  """(model of transformers, the folder that it wrote)."""
  model = twin(kind, **changes)
  model.save_pretrained(folder)
  return model, folder


def next_tokens(tokens, lengths):
  """The targets of tokens of which only the first `lengths` of each row are not padding."""
  targets = np.full_like(tokens, -1)
  for row, length in enumerate(lengths):
    targets[row, :length - 1] = tokens[row, 1:length]
  return targets


@jax.jit
def loss_and_gradients(model, tokens, targets):
  def loss(model):
    x, wte = model.features(tokens), model.unembedding[...]
    total, count = next_token_loss(x, wte, targets, model.n_vocab, 128)
    return total / count
  return jax.value_and_grad(loss)(model)


def check_parity(theirs, folder, lengths):
  """Logits to 1e-4 at full context, loss to 1e-5 and gradients to 1e-4 of the largest of their tensor."""
  tokens = tokens_for(theirs, batch=len(lengths))
  real = np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None]
  with mesh_of():
    ours, _ = gptjax.load(folder)
    difference = np.asarray(ours(tokens)) - logits_of(theirs, tokens, lengths)
  assert np.abs(difference[real]).max() < 1e-4

  tokens, real = tokens[:, :256], real[:, :256]
  with mesh_of():
    loss, grads = loss_and_gradients(ours, tokens, next_tokens(tokens, real.sum(1)))
  judged = theirs(torch.tensor(tokens).long(), labels=torch.tensor(np.where(real, tokens, -100)).long()).loss
  assert abs(float(loss) - judged.item()) < 1e-5
  judged.backward()
  want = {name: weight.grad.numpy() for name, weight in theirs.named_parameters()}
  params = nnx.to_pure_dict(nnx.state(grads))
  for entry in released_tensors(params, theirs.config.to_dict()):
    for name, grad in unstack_tensors(entry).items():
      scale = np.abs(want[name]).max()
      np.testing.assert_allclose(grad, want.pop(name), atol=1e-4 * scale, rtol=0, err_msg=name)
  assert not want


@pytest.mark.first_cases(3)
@pytest.mark.parametrize('kind, changes', ODD)
def test_logits_loss_and_gradients_are_those_of_transformers(tmp_path, kind, changes):
  theirs, folder = saved(tmp_path, kind, **changes)
  full = theirs.config.max_position_embeddings
  check_parity(theirs, folder, [full, full // 2 + 1, 2])


def real_gpt2(folder, n_layer):
  return saved(folder, noise=0.02, n_layer=n_layer, n_head=12, n_embd=768, n_positions=1024, vocab_size=50257)


@pytest.mark.slow
def test_so_they_are_at_the_real_width_context_and_vocabulary(tmp_path):
  check_parity(*real_gpt2(tmp_path, 2), [1024])


@pytest.mark.slow
def test_so_they_are_at_the_real_size_of_124_million(tmp_path):
  theirs, folder = real_gpt2(tmp_path, 12)
  assert sum(weight.numel() for weight in theirs.parameters()) == 124_439_808
  check_parity(theirs, folder, [1024, 700])


@pytest.mark.slow
def test_so_they_are_at_the_real_size_of_gpt1(tmp_path):
  theirs, folder = saved(tmp_path, 'openai-gpt', noise=0.02, n_layer=12, n_head=12, n_embd=768,
                         n_positions=512, vocab_size=40478)
  assert sum(weight.numel() for weight in theirs.parameters()) == 116_534_784
  check_parity(theirs, folder, [512, 100])


def rewrite(folder, change):
  """Passes the tensors of model.safetensors through a function of {name: array}."""
  path = folder / 'model.safetensors'
  save_file(change(load_file(path)), path, {'format': 'pt'})


def settings(folder, **changes):
  path = folder / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def loaded(folder):
  with mesh_of():
    return gptjax.load(folder)[0]


def same(model, other):
  for mine, its in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(mine, its)


MASK = np.tril(np.ones((1, 1, 24, 24), bool))


@pytest.mark.parametrize('kind', ['gpt2', 'openai-gpt'])
@pytest.mark.parametrize('change', [
  lambda t: {name.removeprefix('transformer.'): value for name, value in t.items()},
  lambda t: {**t, 'transformer.h.0.attn.bias': MASK, 'h.1.attn.bias': MASK.astype('f4'),
             'transformer.h.1.attn.masked_bias': np.array(-1e4), 'position_ids': np.arange(24)},
  lambda t: {**t, 'lm_head.weight': next(t[name] for name in t if 'wte' in name or 'tokens' in name)}],
  ids=['no prefix', 'masks', 'a copy of the embedding as head'])
def test_every_spelling_gives_the_same_model(tmp_path, kind, change):
  _, folder = saved(tmp_path, kind)
  plain = loaded(folder)
  rewrite(folder, change)
  same(plain, loaded(folder))


def test_shards_with_an_index_give_the_same_model(tmp_path):
  model, folder = saved(tmp_path / 'whole')
  model.save_pretrained(tmp_path / 'parts', max_shard_size='20KB')
  assert len(list((tmp_path / 'parts').glob('*.safetensors'))) > 3
  same(loaded(folder), loaded(tmp_path / 'parts'))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly_and_kept_in_float32(tmp_path, dtype):
  model = twin('gpt2').to(dtype)
  model.save_pretrained(tmp_path)
  ours, theirs = loaded(tmp_path), model.float()
  assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {np.dtype('float32')}
  tokens = tokens_for(theirs)
  with mesh_of():
    np.testing.assert_allclose(ours(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('sizes', [dict(fsdp=8), dict(data=2, fsdp=2, tensor=2), dict(fsdp=2, tensor=4)])
@pytest.mark.parametrize('kind', ['gpt2', 'openai-gpt'])
def test_on_eight_devices_the_weights_lie_as_the_mesh_says_and_the_logits_are_the_same(tmp_path, kind, sizes):
  theirs, folder = saved(tmp_path, kind, tie_word_embeddings=False)
  tokens = tokens_for(theirs, batch=8)
  with mesh_of(**sizes):
    model, _ = gptjax.load(folder)
    np.testing.assert_allclose(model(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
  shard = model.h.attn.c_attn.w[...].addressable_shards[0].data.shape
  assert shard == (2, 32 // sizes['fsdp'], 3, 4 // sizes.get('tensor', 1), 8)
  same(jax.device_get(model), jax.device_get(loaded(folder)))


def test_a_mesh_that_cannot_divide_the_model_is_refused_by_name(tmp_path):
  _, folder = saved(tmp_path, n_head=3, n_embd=27)
  with mesh_of(fsdp=2), pytest.raises(ValueError, match=r'n_embd = 27 cannot be divided by .* = 2'):
    gptjax.load(folder)
  with jax.set_mesh(jax.make_mesh((8,), ('x',))), pytest.raises(ValueError, match='the current mesh'):
    gptjax.load(folder)


ALONE = """
import sys
for name in ('torch', 'transformers', 'tensorflow', 'clu'):
  sys.modules[name] = None
import gptjax
assert 'jax' not in sys.modules, 'importing gptjax is light'
import numpy as np
model, tokenizer = gptjax.load(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[3])))
"""


@pytest.mark.ci
def test_without_pytorch_and_without_a_mesh(tmp_path):
  theirs, folder = saved(tmp_path / 'model')
  tokens = tokens_for(theirs)
  np.save(tmp_path / 'in.npy', tokens)
  subprocess.run([sys.executable, '-c', ALONE, folder, tmp_path / 'out.npy', tmp_path / 'in.npy'], cwd=ROOT,
                 env=ENVIRONMENT, check=True)
  np.testing.assert_allclose(np.load(tmp_path / 'out.npy'), logits_of(theirs, tokens), atol=1e-4, rtol=0)


MEMORY = """
import sys, gptjax, jax, numpy as np
from gptjax import pretrained
from gptjax.parallel import sharding
def peak():
  return next(1024 * int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))
sharding.ensure_mesh()
pretrained.layout.weight_shapes(pretrained.layout.config_from_fields({}))
before = peak()
model, _ = gptjax.load(sys.argv[1])
print(before, peak(), sum(leaf.nbytes for leaf in jax.tree.leaves(model)))
"""


@pytest.mark.ci
@pytest.mark.parametrize('kind, sizes', [
  ('gpt2', dict(n_layer=8, n_head=8, n_embd=768)),
  ('llama', dict(num_hidden_layers=8, num_attention_heads=8, hidden_size=768, intermediate_size=2048))])
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, kind, sizes):
  if not sys.platform.startswith('linux'):
    pytest.skip('reads /proc')
  _, folder = saved(tmp_path, kind, vocab_size=1000, **sizes)
  done = subprocess.run([sys.executable, '-c', MEMORY, folder], cwd=ROOT, env=ENVIRONMENT, check=True,
                        capture_output=True, text=True)
  before, peak, weights = map(int, done.stdout.split())
  assert weights > 190e6
  assert peak - before < 1.15 * weights


def truncate(path, keep):
  path.write_bytes(path.read_bytes()[:keep])


def without(name):
  return lambda folder: rewrite(folder, lambda t: {key: t[key] for key in t if key != name})


def with_tensor(name, value):
  return lambda folder: rewrite(folder, lambda t: {**t, name: value})


def as_pickle(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


def as_shards(folder):
  twin('gpt2').save_pretrained(folder, max_shard_size='20KB')
  (folder / 'model.safetensors').unlink(missing_ok=True)
  return folder / 'model.safetensors.index.json'


def lost_shard(folder):
  as_shards(folder)
  next(folder.glob('model-00002*')).unlink()


def empty_index(folder):
  as_shards(folder).write_text('{"weight_map": {"a": "../b"}}')


def renamed(old, new):
  """A wrapper's names in place of those of transformers."""
  def damage(folder):
    path = folder / 'model.safetensors'
    save_file({name.replace(old, new, 1): tensor for name, tensor in load_file(path).items()}, path)
  return damage


def pointer(path):
  """What `git clone` leaves without `git lfs`."""
  path.write_text(f'version https://git-lfs.github.com/spec/v1\noid sha256:{"4d7a" * 16}\nsize 12345\n')


def as_adapter(folder):
  (folder / 'config.json').unlink()
  (folder / WEIGHTS).rename(folder / 'adapter_model.safetensors')
  (folder / 'adapter_config.json').write_text('{}')


def as_output_dir(folder):
  """What a Trainer of transformers leaves in its output_dir while it runs."""
  for name in ('config.json', WEIGHTS):
    (folder / name).unlink()
  (folder / 'training_args.bin').write_bytes(b'x')
  for step in (500, 1000):
    (folder / f'checkpoint-{step}').mkdir()


C_FC = 'transformer.h.1.mlp.c_fc.weight'
WEIGHTS = 'model.safetensors'


@pytest.mark.parametrize('damage, says', [
  (without(C_FC), r'the tensor h.1.mlp.c_fc.weight [32, 128] is missing'),
  (with_tensor(C_FC, np.zeros((128, 32), 'f4')), r'c_fc.weight is [128, 32], but .* require [32, 128]'),
  (with_tensor('h.2.ln_1.bias', np.zeros(32, 'f4')),
   r'the tensor h.2.ln_1.bias [32] is not part of the model'),
  (with_tensor('score.weight', np.zeros((2, 32), 'f4')),
   r"score.weight [2, 32] is not part .* architectures in config.json is ['GPT2LMHeadModel']"),
  (with_tensor(C_FC, np.zeros((32, 128), 'i8')), r'c_fc.weight is of type I64'),
  (with_tensor('h.1.mlp.c_fc.weight', np.zeros((32, 128), 'f4')), r'is also in model.safetensors'),
  (with_tensor('lm_head.weight', np.zeros((61, 32), 'f4')), r'lm_head.weight differs from wte.weight'),
  (lambda f: truncate(f / WEIGHTS, 5000), 'model.safetensors is damaged or cut short'),
  (lambda f: truncate(f / WEIGHTS, (f / WEIGHTS).stat().st_size - 1), 'model.safetensors is damaged or cut'),
  (lambda f: truncate(f / WEIGHTS, 0), 'model.safetensors is damaged or cut short'),
  (lambda f: (f / WEIGHTS).write_bytes(b'\x80\x04}q\x00.' * 99), 'model.safetensors is damaged or cut short'),
  (lambda f: (f / 'config.json').write_text('{"model_type": '), 'config.json is not JSON'),
  (lambda f: (f / 'config.json').write_text('[1]'), 'config.json: its content is [1], not dict'),
  (lambda f: (f / 'config.json').write_bytes(b'\xff\xfe{}'), 'config.json is not JSON'),
  (lambda f: (f / 'config.json').unlink(), 'has model.safetensors but no config.json'),
  (lambda f: (f / WEIGHTS).rename(f / 'gpt2.safetensors'), 'gpt2.safetensors, but neither model.safetensors'),
  (as_adapter, 'has an adapter of PEFT, not a model'),
  (as_output_dir, 'give one of its checkpoints, like .*/checkpoint-1000'),
  (as_pickle, r'has no safetensors, only pytorch_model.bin.*`python -m gptjax.pretrained import .* FOLDER`'),
  (lost_shard, r'model-00002-of-.*.safetensors is missing, but model.safetensors.index.json names it'),
  (empty_index, r'model.safetensors.index.json has no weight_map'),
  (lambda f: settings(f, model_type='bloom'), r"model_type = 'bloom' is not supported, only gpt2"),
  (lambda f: settings(f, n_layer=0), r'n_layer is 0: it must be a positive integer'),
  (lambda f: settings(f, n_layer='2'), r"n_layer is '2': it must be a positive integer"),
  (lambda f: settings(f, n_head=5), r'n_embd = 32 is not divisible by n_head = 5'),
  (lambda f: settings(f, n_layer=3), r'the tensor h.2.attn.c_attn'),
  (lambda f: settings(f, n_positions=25), r'wpe.weight is [24, 32], but .* require [25, 32]'),
  (lambda f: settings(f, vocab_size=62), r'wte.weight is [61, 32], but .* require [62, 32]'),
  (lambda f: settings(f, n_inner=64), r'c_fc.* is [128], but .* require [64]'),
  (lambda f: settings(f, tie_word_embeddings=False), r'the tensor lm_head.weight [61, 32] is missing'),
  (lambda f: settings(f, activation_function='quick_gelu'), r"activation_function = 'quick_gelu' is not"),
  (lambda f: settings(f, add_cross_attention=True), r'add_cross_attention = True is not supported'),
  (lambda f: settings(f, quantization_config={'bits': 4}), r"quantization_config = {'bits': 4} is not"),
  (lambda f: settings(f, layer_norm_epsilon='small'), r"layer_norm_epsilon is 'small', not float"),
  (lambda f: settings(f, scale_attn_weights=0), r'scale_attn_weights is 0, not bool'),
  (renamed('transformer.', 'module.transformer.'),
   r"are named module.transformer.*'module.' from all names"),
  (renamed('transformer.', '_orig_mod.transformer.'),
   r'as torch.compile names them, but must be transformer.wte'),
  (renamed('transformer.', 'model.'), r'named model.* must be transformer.wte.weight'),
  (lambda f: pointer(f / WEIGHTS), 'model.safetensors is a Git LFS pointer, not the file itself: `git lfs'),
  (lambda f: pointer(f / 'config.json'), 'config.json is a Git LFS pointer'),
  (lambda f: pointer(f / 'tokenizer.json'), 'tokenizer.json is a Git LFS pointer'),
  (lambda f: pointer(f / 'spiece.model'), 'spiece.model is a Git LFS pointer'),
  (lambda f: (f / 'tokenizer.json').write_text('{"model": 3}'), 'the tokenizer cannot be read')])
def test_a_bad_folder_is_refused_in_one_line_that_names_it(tmp_path, damage, says):
  _, folder = saved(tmp_path)
  damage(folder)
  pattern = '.*'.join(map(re.escape, says.split('.*')))
  with mesh_of(), pytest.raises(ValueError, match=pattern) as error:
    gptjax.load(folder)
  assert '\n' not in str(error.value) and str(folder) in str(error.value)


def test_tied_weights_stored_as_the_head_alone_are_read(tmp_path):
  _, folder = saved(tmp_path)
  plain = loaded(folder)
  renamed('transformer.wte.weight', 'lm_head.weight')(folder)
  same(plain, loaded(folder))


def test_the_number_of_layers_is_compared_with_the_tensors_before_any_is_named(tmp_path, monkeypatch):
  saved(tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps({**config, 'n_layer': 10**6}))
  monkeypatch.setattr(gptjax.pretrained.layout, 'released_shapes', None)
  with mesh_of(), pytest.raises(ValueError, match='n_layer = 1000000 needs 12 tensors for each layer'):
    gptjax.load(tmp_path)


def test_a_missing_size_takes_no_default_but_a_missing_option_does(tmp_path):
  _, folder = saved(tmp_path)
  plain = loaded(folder)
  sizes = dict(n_layer=2, n_head=4, n_embd=32, n_positions=24, vocab_size=61)
  assert sizes == SMALL
  for name in sizes:
    (folder / 'config.json').write_text(json.dumps({k: v for k, v in sizes.items() if k != name}
                                                   | {'model_type': 'gpt2'}))
    with mesh_of(), pytest.raises(ValueError, match=f'{name} is missing'):
      gptjax.load(folder)
  (folder / 'config.json').write_text(json.dumps({**sizes, 'model_type': 'gpt2'}))
  same(plain, loaded(folder))


@pytest.mark.parametrize('name', ['model.bin', 'model.pt', 'model.pkl', 'absent', 'resume', 'empty'])
def test_what_is_no_folder_of_weights_is_refused(tmp_path, name):
  path = tmp_path / name
  if name == 'empty':
    path.mkdir()
  elif name not in ('absent', 'resume'):
    path.write_bytes(b'x')
  says = {'absent': 'is not a folder', 'resume': 'leave init_from empty', 'empty': 'has no weights'}
  with mesh_of(), pytest.raises(ValueError, match=says.get(name, 'is not read as it is')):
    gptjax.load(path)

