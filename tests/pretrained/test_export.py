"""Folders for transformers: the same tensors to the bit, the same logits and ids; whole at every moment."""

import concurrent.futures
import functools
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, SHARED, mesh_of, tiny_config
from flax import nnx
from safetensors.numpy import load_file
from torch_models import logits_of, opened, tensors, tokens_for, transformers, twin

import gptjax
from gptjax.data.tokenizers import byte_bpe, hf_tokenizer, loading, sentence_piece
from gptjax.finetune.model import add_lora
from gptjax.generate import kv_cache
from gptjax.model.gpt import GPT
from gptjax.model.lstm import language_model
from gptjax.pretrain.loop import pretrain
from gptjax.pretrained import __main__ as command
from gptjax.pretrained import export
from gptjax.pretrained.export import folder_files, write_folder


def loaded(folder, **sizes):
  with mesh_of(**sizes):
    return gptjax.load(folder)


@pytest.mark.first_cases(4)
@pytest.mark.parametrize('sizes', [{}, dict(data=2, fsdp=2, tensor=2)], ids=['one device', 'eight'])
@pytest.mark.parametrize('kind, changes', [
  ('gpt2', dict(vocab_size=131)),
  ('gpt2', dict(n_layer=1, n_inner=20, activation_function='gelu', layer_norm_epsilon=1e-3,
                scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False)),
  ('openai-gpt', dict(vocab_size=131)), ('openai-gpt', dict(afn='relu', tie_word_embeddings=False)),
  ('llama', dict(hidden_size=48, num_attention_heads=12, num_key_value_heads=4, vocab_size=131)),
  ('llama', dict(num_attention_heads=2, num_key_value_heads=2, head_dim=20, tie_word_embeddings=True)),
  ('qwen3', dict(rms_norm_eps=1e-3, rope_parameters={'rope_type': 'default', 'rope_theta': 500.0})),
  ('qwen3', dict(num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True))])
def test_from_hugging_face_and_back_every_bit_is_the_same(tmp_path, kind, changes, sizes):
  names = ['attention_dropout'] if kind in ('llama', 'qwen3') else ['resid_pdrop', 'attn_pdrop', 'embd_pdrop']
  theirs = twin(kind, **dict.fromkeys(names, 0.25), **changes)
  theirs.save_pretrained(tmp_path / 'in')
  gptjax.save_pretrained(*loaded(tmp_path / 'in', **sizes), tmp_path / 'out')
  back = opened(tmp_path / 'out')
  assert type(back) is type(theirs)
  want, have = tensors(theirs), tensors(back)
  assert want.keys() == have.keys()
  for name in want:
    assert want[name].dtype == have[name].dtype == np.float32
    np.testing.assert_array_equal(want[name], have[name])
  said, wanted = (model.config.to_dict() for model in (back, theirs))
  assert all(said[name] == wanted[name] for name in wanted if name not in ('_name_or_path', 'dtype'))
  tokens = tokens_for(theirs)
  np.testing.assert_array_equal(logits_of(back, tokens), logits_of(theirs, tokens))
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
    'config.json', 'generation_config.json', 'model.safetensors'}


@pytest.mark.parametrize('norm', ['before', 'after'])
def test_a_model_of_gptjax_has_the_same_logits_in_transformers_and_no_padding(tmp_path, norm):
  config = tiny_config(**{'model.norm': norm, 'model.pad_vocab_to': 128})
  with mesh_of():
    model = jax.jit(lambda key: GPT(key, config))(jax.random.key(1))
    gptjax.save_pretrained(model, None, tmp_path / 'out')
    theirs = opened(tmp_path / 'out')
    tokens = tokens_for(theirs)
    np.testing.assert_allclose(model(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
  sizes = {value.shape[0] for name, value in load_file(tmp_path / 'out' / 'model.safetensors').items()
           if 'wte' in name or 'tokens_embed' in name}
  assert sizes == {61} and model.wte.shape == (128, 32)


TEXTS = ['hello world, this is a plain sentence.', ' two  spaces\n\nand lines\t', "I'll don't DON'T we've",
         'naïve café 日本 \U0001f600 e\u0301', '2019 1,000', '', ' ', 'a' * 300]


@pytest.fixture(scope='module')
def novel():
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  return (SHARED / 'text' / 'tinyshakespeare' / 'input.txt').read_text()[:60_000]


def as_opened(tmp_path, tokenizer, **changes):
  """(the tokenizer as AutoTokenizer opens it, the folder)."""
  twin('gpt2', vocab_size=tokenizer.n_vocab, n_embd=4, n_layer=1, **changes).save_pretrained(tmp_path / 'in')
  model, _ = loaded(tmp_path / 'in')
  gptjax.save_pretrained(model, tokenizer, tmp_path / 'out')
  assert opened(tmp_path / 'out').config.eos_token_id == tokenizer.end_of_text
  return transformers.AutoTokenizer.from_pretrained(tmp_path / 'out'), tmp_path / 'out'


@pytest.mark.parametrize('kind', ['gpt2', 'bpe', 'sentencepiece'])
def test_tokenizers_give_the_same_ids_and_text_in_transformers(tmp_path, novel, kind):
  tokenizer = {'gpt2': lambda: loading.load(f'gpt2:{SHARED}/bpe/gpt2'),
               'bpe': lambda: byte_bpe.train_bpe([novel], 400),
               'sentencepiece': lambda: sentence_piece.train_sentencepiece([novel], 600)}[kind]()
  theirs, folder = as_opened(tmp_path, tokenizer)
  assert theirs.eos_token_id == tokenizer.end_of_text and theirs.model_max_length == 24
  for text in [*TEXTS, novel[:5000]]:
    ids = tokenizer.encode(text).tolist()
    assert theirs(text).input_ids == ids, text
    assert theirs.decode(ids) == tokenizer.decode(ids)
  assert loaded(folder)[1].digest == tokenizer.digest


def test_generation_in_transformers_stops_at_the_ends_of_the_tokenizer(tmp_path):
  import tokenizers as library
  tokenizer = byte_bpe.train_bpe(['the cat sat on the mat'], 264)
  tokenizer.eos_ids = (263, 7)
  twin('gpt2', vocab_size=264).save_pretrained(tmp_path / 'in')
  model, _ = loaded(tmp_path / 'in')
  gptjax.save_pretrained(model, tokenizer, tmp_path / 'out')
  said = transformers.GenerationConfig.from_pretrained(tmp_path / 'out')
  assert said.eos_token_id == [263, 7] and said.bos_token_id == 263
  theirs = opened(tmp_path / 'out')
  assert theirs.generation_config.eos_token_id == [263, 7]
  text = theirs.generate(max_new_tokens=20, do_sample=True, pad_token_id=0)[0].tolist()
  assert text[0] == 263 and not {7, 263} & set(text[1:-1]), 'it starts at the end of a text and stops there'
  assert loaded(tmp_path / 'out')[1].eos_ids == (263, 7)
  fast = library.Tokenizer.from_file(str(tmp_path / 'out' / 'tokenizer.json'))
  assert fast.encode('the cat sat').ids == tokenizer.encode('the cat sat').tolist()


def test_an_export_of_an_older_version_gains_the_new_file(tmp_path):
  twin('gpt2').save_pretrained(tmp_path / 'in')
  model, _ = loaded(tmp_path / 'in')
  gptjax.save_pretrained(model, None, tmp_path / 'out')
  (tmp_path / 'out' / 'generation_config.json').unlink()
  gptjax.save_pretrained(model, None, tmp_path / 'out')
  assert json.loads((tmp_path / 'out' / 'generation_config.json').read_text()) == {
    'bos_token_id': None, 'eos_token_id': None}


def test_gpt1s_vocabulary_goes_along_and_plain_sentences_have_the_same_ids(tmp_path):
  if not SHARED.is_dir():
    pytest.skip(f'needs the vocabulary in {SHARED}')
  tokenizer = loading.load(f'gpt1:{SHARED}/bpe/gpt1')
  theirs, folder = as_opened(tmp_path, tokenizer)
  assert type(theirs).__name__.startswith('OpenAIGPT') and theirs.vocab_size == 40478
  for text in ('Hello world, this is a plain sentence.', 'the transformer ; a xylophonist ?'):
    assert theirs(text).input_ids == tokenizer.encode(text).tolist()
  assert theirs("don't").input_ids != tokenizer.encode("don't").tolist()  # as the docstring says
  assert loaded(folder)[1].digest == tokenizer.digest


def test_a_tokenizer_of_another_kind_comes_in_and_goes_out_as_it_is(tmp_path, novel):
  import tokenizers as library
  made = library.Tokenizer(library.models.BPE())
  made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = library.decoders.ByteLevel()
  made.train_from_iterator([novel], library.trainers.BpeTrainer(vocab_size=400, special_tokens=['<end>']))
  theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token='<end>')
  theirs.save_pretrained(tmp_path / 'other')
  tokenizer = hf_tokenizer.load_folder(tmp_path / 'other')
  assert (tokenizer.name, tokenizer.n_vocab, tokenizer.end_of_text) == ('tokenizers', 400, 0)
  assert 0 not in tokenizer.encode('<end>'), 'nothing in a text is a special token'
  again, folder = as_opened(tmp_path, tokenizer)
  for text in TEXTS:
    assert again(text).input_ids == theirs(text).input_ids == tokenizer.encode(text).tolist()
  assert loaded(folder)[1].digest == tokenizer.digest == loading.load(str(folder)).digest


@pytest.mark.ci
def test_a_folder_of_transformers_gives_the_digest_of_openais_files(tmp_path, novel):
  for kind, model_class in (('gpt2', 'GPT2Tokenizer'), ('gpt1', 'OpenAIGPTTokenizer')):
    ours = loading.load(f'{kind}:{SHARED}/bpe/{kind}')
    encoder, merges = ours.files.values()
    folder = tmp_path / kind
    folder.mkdir()
    (folder / 'vocab.json').write_bytes(encoder)
    (folder / 'merges.txt').write_bytes(merges)
    assert hf_tokenizer.load_folder(folder).digest == ours.digest
    getattr(transformers, model_class).from_pretrained(folder).save_pretrained(tmp_path / f'{kind}-saved')
    assert not (tmp_path / f'{kind}-saved' / 'merges.txt').exists()
    assert hf_tokenizer.load_folder(tmp_path / f'{kind}-saved').digest == ours.digest


def gpt(**changes):
  with mesh_of():
    return jax.jit(lambda key: GPT(key, tiny_config(**changes)))(jax.random.key(0))


@pytest.mark.parametrize('changes, says', [
  ({'model.n_inner': 64}, 'n_inner = 64, only 128'),
  ({'model.activation_function': 'gelu'}, "activation_function = 'gelu'"),
  ({'model.scale_attn_weights': False}, 'scale_attn_weights = False, only True'),
  ({'model.scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx = True, only False')])
def test_what_openai_gpt_cannot_be_is_refused_by_name(tmp_path, changes, says):
  with pytest.raises(ValueError, match=f'OpenAI-GPT in transformers does not support {says}'):
    gptjax.save_pretrained(gpt(**{'model.norm': 'after', **changes}), None, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_an_activation_that_transformers_lacks_is_refused_by_name(tmp_path):
  model = gpt()
  model.h.mlp.activation = 'relu_squared'
  with pytest.raises(ValueError, match=r"^GPT-2 in transformers .* = 'relu_squared'$"):
    gptjax.save_pretrained(model, None, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


VARIANTS = [
  {}, {'n_inner': 64}, {'activation_function': 'gelu'}, {'activation_function': 'relu'},
  {'activation_function': 'silu'}, {'layer_norm_epsilon': 0.1}, {'scale_attn_weights': False},
  {'scale_attn_by_inverse_layer_idx': True}, {'tie_word_embeddings': False}, {'dropout': 0.3},
  {'pad_vocab_to': 128}, {'remat': 'full', 'scan': False, 'compute_dtype': 'float32'},
  {'architecture': 'lstm', 'n_layer': 1},
  {'tie_word_embeddings': False, 'n_inner': 64, 'activation_function': 'relu', 'scale_attn_weights': False,
   'scale_attn_by_inverse_layer_idx': True}]


@pytest.mark.first_cases(7)
@pytest.mark.parametrize('norm', ['before', 'after'])
@pytest.mark.parametrize('variant', VARIANTS, ids=lambda variant: ' '.join(map(str, variant)) or 'plain')
def test_an_export_gives_the_same_logits_or_is_refused_when_the_config_is_read(tmp_path, variant, norm):
  config = tiny_config(**{f'model.{name}': value for name, value in {**variant, 'norm': norm}.items()})
  with mesh_of():
    model = jax.jit(lambda: language_model(jax.random.key(1), config))()
    model = jax.tree.map(lambda x: 3 * x, model)  # scores that matter
    why = export.export_unsupported_reason(config)
    if why is not None:
      with pytest.raises(ValueError, match=re.escape(why)):
        gptjax.save_pretrained(model, None, tmp_path / 'out')
      assert not list(tmp_path.iterdir())
      return
    gptjax.save_pretrained(model, None, tmp_path / 'out')
    theirs = opened(tmp_path / 'out')
    tokens = tokens_for(theirs)
    np.testing.assert_allclose(model(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=1e-4)


def test_every_option_is_written_for_gpt2():
  for variant in VARIANTS:
    config = tiny_config(**{f'model.{name}': value for name, value in variant.items()})
    assert (export.export_unsupported_reason(config) is None) == ('architecture' not in variant)


def with_lora(model):
  model.h = add_lora(model.h, jax.random.key(0), 2, model.n_layer)
  return model


def changed(path, value):
  def change(model):
    *parents, name = path.split('.')
    setattr(functools.reduce(getattr, parents, model), name, value)
    return model
  return change


ELSE = {
  'LoRA beside projections': (with_lora, 'h/attn/c_attn is LoRAProjection, but in its gpt2 Projection'),
  'layers apart': (kv_cache.prepare_for_decoding, 'not GPT with unstacked layers'),
  'another epsilon at the end': (changed('ln_f.epsilon', 0.1), 'ln_f/epsilon is 0.1, but in its gpt2 1e-05'),
  'another epsilon in blocks': (changed('h.ln_2.epsilon', 0.1), 'h/ln_2/epsilon is 0.1'),
  'a weight more': (changed('h.attn.sink', nnx.Param(jnp.ones(32))), 'h/attn/sink is (Declaration('),
  'an option more': (changed('h.mlp.gated', True), 'h/mlp/gated is True, but in its gpt2 absent'),
  'another shape': (lambda model: changed('h.attn.c_proj', model.h.attn.c_attn)(model), 'h/attn/c_proj/b is'),
  'transposed matrices': (changed('h.mlp.c_fc.transposed', True), 'h/mlp/c_fc/transposed is True'),
  'a kind of GPT': (changed('__class__', type('Other', (GPT,), {})), 'not Other'),
}


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('case', ELSE)
def test_a_model_that_is_not_exactly_gpt2_is_refused(tmp_path, case):
  change, says = ELSE[case]
  with mesh_of():
    model = change(gpt())
    with pytest.raises(ValueError, match=re.escape(says)):
      gptjax.save_pretrained(model, None, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_a_run_that_is_to_export_what_transformers_has_not_is_refused_before_anything_is_made(tmp_path):
  config = tiny_config(**{'checkpoint.export': True, 'model.architecture': 'lstm', 'model.n_layer': 1})
  with pytest.raises(ValueError, match='export = True, but transformers does not have this LSTM'):
    pretrain(config, tmp_path / 'run')
  assert not list(tmp_path.iterdir())


def test_folders_that_must_not_be_written_are_refused_and_left_alone(tmp_path, novel):
  gptjax.save_pretrained(gpt(), None, tmp_path / 'out')
  gptjax.save_pretrained(gpt(), None, tmp_path / 'out')
  with pytest.raises(ValueError, match=r'has another model or tokenizer \(config.json differs\)'):
    gptjax.save_pretrained(gpt(**{'model.n_layer': 1}), None, tmp_path / 'out')
  with pytest.raises(ValueError, match='the tokenizer has 400 entries, but the model only 61'):
    gptjax.save_pretrained(gpt(), byte_bpe.train_bpe([novel], 400), tmp_path / 'new')
  (tmp_path / 'file').touch()
  for path in (tmp_path / 'file', tmp_path / 'file' / 'below', '/dev/full/x'):
    with pytest.raises(ValueError, match='cannot be written'):
      gptjax.save_pretrained(gpt(), None, path)
  assert sorted(os.listdir(tmp_path)) == ['file', 'out']


def test_the_kinds_of_sentencepiece_that_cannot_be_written_are_refused(tmp_path, novel):
  import io

  import sentencepiece
  for options, says in ((dict(model_type='bpe'), 'model_type is not unigram'),
                        (dict(normalization_rule_name='nmt_nfkc'), 'normalization_rule_name is not')):
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(novel.split('\n')), model_writer=content, vocab_size=300, minloglevel=2,
      **{'normalization_rule_name': 'identity', **options})
    with pytest.raises(ValueError, match=says):
      gptjax.save_pretrained(gpt(**{'model.n_vocab': 300}), sentence_piece.SentencePiece(content.getvalue()),
                             tmp_path / 'out')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('damage', [lambda content: b'', lambda content: content[:1000],
                                    lambda content: content[:8] + b'[1]' + content[11:]])
def test_a_damaged_export_of_a_run_has_no_facts_and_is_replaced(tmp_path, damage):
  with mesh_of():
    model = jax.jit(lambda key: GPT(key, tiny_config()))(jax.random.key(0))
  params, files = nnx.to_pure_dict(nnx.state(model)), folder_files(model, None)
  path = tmp_path / 'export' / 'model.safetensors'
  for step in '1', '2':
    write_folder(files, params, path.parent, {'step': step})
    assert export.exported_facts(path.parent)['step'] == step
    path.write_bytes(damage(path.read_bytes()))
    assert export.exported_facts(path.parent) == {}


def test_the_command(tmp_path, capsys):
  twin('gpt2').save_pretrained(tmp_path / 'in')
  with mesh_of():
    command.main(['export', f'--from={tmp_path}/in', f'--to={tmp_path}/out'])
  assert '2 layers of width 32, no tokenizer' in capsys.readouterr().out
  want, have = (load_file(tmp_path / name / 'model.safetensors') for name in ('in', 'out'))
  assert want.keys() == have.keys() and all((want[name] == have[name]).all() for name in want)
  done = subprocess.run([sys.executable, '-m', 'gptjax.pretrained', 'export', '--from=absent', '--to=x'],
                        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (
    2, f'export: {ROOT}/absent is not a folder: give the folder of the weights, or a name on the Hugging '
    'Face Hub, OWNER/NAME\n')


RENEWING = """
import json, pickle, shutil, sys
from pathlib import Path
import jax
import killing
import numpy as np
from safetensors.numpy import load_file
from gptjax.pretrained import export
folder, (files, params) = Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())
def write(step):
  weights = jax.tree.map(lambda x: np.full(x.shape, step, np.float32), params)
  export.write_folder(files, weights, folder, {'step': str(step)})
def look():
  if not folder.exists():
    return None
  values = load_file(folder / export.SINGLE).values()
  found = {float(x) for value in values for x in (value.min(), value.max())}
  return [*sorted(found), export.exported_facts(folder)['step']]
for before in (False, True):
  n, killed = 0, True
  while killed:
    n += 1
    shutil.rmtree(folder, ignore_errors=True)
    if before:
      killing.forked(lambda: write(1))
    killed = killing.forked(lambda: write(2), f'{folder}*', n)
    left = look()
    killing.forked(lambda: write(3))
    print(json.dumps([before, n, left, look(), sorted(path.name for path in folder.iterdir())]))
"""


@pytest.mark.ci
def test_killed_at_any_change_of_its_files_the_folder_holds_one_whole_step(tmp_path):
  with mesh_of():
    model = jax.jit(lambda key: GPT(key, tiny_config(**{'model.n_layer': 1})))(jax.random.key(0))
  params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), nnx.to_pure_dict(nnx.state(model)))
  (tmp_path / 'given').write_bytes(pickle.dumps((folder_files(model, None), params)))
  (tmp_path / 'script.py').write_text(RENEWING)
  done = subprocess.run([sys.executable, tmp_path / 'script.py', tmp_path / 'export', tmp_path / 'given'],
                        env={**ENVIRONMENT, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])},
                        check=True, capture_output=True, text=True)
  seen = {False: [], True: []}
  for before, n, left, after, names in map(json.loads, done.stdout.splitlines()):
    seen[before].append(left)
    assert after == [3.0, '3'] and names == ['config.json', 'generation_config.json', 'model.safetensors'], (
      before, n)
  whole = [2.0, '2']
  for left, earlier in ((seen[False], None), (seen[True], [1.0, '1'])):
    assert len(left) > 20 and left == [earlier] * left.count(earlier) + [whole] * left.count(whole), left
    assert whole in left and earlier in left


def test_a_reader_beside_the_writer_sees_one_whole_step(tmp_path):
  folder, path = tmp_path / 'export', tmp_path / 'export' / 'model.safetensors'
  with mesh_of():
    model = jax.jit(lambda key: GPT(key, tiny_config()))(jax.random.key(0))
  params, files = nnx.to_pure_dict(nnx.state(model)), folder_files(model, None)
  stop = threading.Event()
  def renew():
    for step in itertools.count(1):
      weights = jax.tree.map(lambda x, step=step: np.full(x.shape, step, np.float32), params)
      write_folder(files, weights, folder, {'step': str(step)})
      if stop.is_set():
        return
  seen, deadline = set(), time.monotonic() + 120
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    writer = thread.submit(renew)
    try:
      while len(seen) < 5 and time.monotonic() < deadline and not writer.done():
        if folder.exists():  # the first one, too, appears whole
          seen.add(frozenset(float(value.flat[0]) for value in load_file(path).values()))
    finally:
      stop.set()
  writer.result()
  assert len(seen) >= 5 and all(len(steps) == 1 for steps in seen)
