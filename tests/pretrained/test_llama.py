"""Llama and Qwen3: every spelling of their folders is read, and every option that gptjax lacks is refused."""

import json
import re

import jax
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from safetensors.numpy import load_file, save_file
from torch_models import logits_of, opened, tokens_for, torch, twin
from variants import VARIANTS

import gptjax
from gptjax.model.lstm import language_model
from gptjax.pretrained import export
from gptjax.pretrained.hf_config import model_fields

LLAMA = dict(model_type='llama', num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
             hidden_size=36, intermediate_size=52, max_position_embeddings=24, vocab_size=61)
QWEN3 = LLAMA | dict(model_type='qwen3', head_dim=10)


def loaded(folder, **sizes):
  with mesh_of(**sizes):
    return gptjax.load(folder)[0]


def same(model, other):
  for mine, its in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize('changes, fields', [
  ({}, dict(rotary_base=10_000.0, n_kv_head=2, head_size=6, layer_norm_epsilon=1e-6, dropout=0.0,
            tie_word_embeddings=False, activation_function='silu', norm_type='rms', positions='rotary',
            mlp='gated', bias=False, n_ctx=24, n_inner=52)),
  (dict(rope_theta=500_000), dict(rotary_base=500_000.0)),
  (dict(rope_theta=500_000.0, rope_scaling=None, attention_bias=False, mlp_bias=False, pretraining_tp=1,
        torch_dtype='bfloat16'), dict(rotary_base=500_000.0)),
  (dict(rope_parameters={'rope_type': 'default', 'rope_theta': 7.0}), dict(rotary_base=7.0)),
  (dict(rope_parameters={'rope_theta': 7.0, 'partial_rotary_factor': 1.0}, rope_theta=8.0),
   dict(rotary_base=7.0)),
  (dict(rope_scaling={'type': 'default'}, rope_theta=8.0, rope_parameters={}), dict(rotary_base=8.0)),
  (dict(num_key_value_heads=None, head_dim=None), dict(n_kv_head=6, head_size=6)),
  (dict(head_dim=8, attention_dropout=0.1, rms_norm_eps=1e-5, hidden_act='swish', tie_word_embeddings=True),
   dict(head_size=8, dropout=0.1, layer_norm_epsilon=1e-5, activation_function='silu',
        tie_word_embeddings=True)),
  (dict(max_position_embeddings=1 << 20), dict(n_ctx=1 << 20))])
def test_every_spelling_of_a_llama_is_the_model_that_transformers_reads(changes, fields):
  found = model_fields('config.json', LLAMA | changes)
  assert {name: found[name] for name in fields} == fields


def test_a_qwen3_has_normalized_queries_and_any_size_of_heads():
  found = model_fields('config.json', QWEN3 | dict(
    num_attention_heads=5, num_key_value_heads=5, use_sliding_window=False, sliding_window=4096,
    max_window_layers=1, layer_types=['full_attention'] * 2))
  assert found['qk_norm'] and (found['n_head'], found['head_size'], found['n_embd']) == (5, 10, 36)


@pytest.mark.parametrize('values, says', [
  (LLAMA | dict(rope_scaling={'rope_type': 'llama3', 'factor': 8.0}), "rope_scaling = {'rope_type': 'lla"),
  (LLAMA | dict(rope_scaling={'type': 'linear', 'factor': 2.0}), "rope_scaling = {'type': 'linear'"),
  (LLAMA | dict(rope_parameters={'rope_type': 'yarn', 'factor': 2.0}), "rope_parameters = {'rope_type': 'ya"),
  (LLAMA | dict(rope_parameters={'full_attention': {'rope_theta': 1e4}}), "rope_parameters = {'full_"),
  (LLAMA | dict(rope_parameters=[1]), 'rope_parameters is [1], not dict'),
  (LLAMA | dict(partial_rotary_factor=0.5), 'partial_rotary_factor = 0.5 is not supported, only 1'),
  (LLAMA | dict(rope_theta='1e4'), "rope_theta is '1e4', not float or int"),
  (LLAMA | dict(rope_theta=-5), 'rope_theta = -5 must be a number'),
  (LLAMA | dict(rope_theta=10**400), 'rope_theta = 2**1328 or more must be a number'),
  (LLAMA | dict(rope_theta=0.5), 'rope_theta = 0.5 must be'),
  (LLAMA | dict(attention_bias=True), 'attention_bias = True is not supported, only False'),
  (LLAMA | dict(mlp_bias=True), 'mlp_bias = True is not supported, only False'),
  (LLAMA | dict(pretraining_tp=2), 'pretraining_tp = 2 is not supported, only 1'),
  (LLAMA | dict(hidden_act='gelu'), "hidden_act = 'gelu' is not supported: it must be one of silu, swish"),
  (LLAMA | dict(quantization_config={'bits': 4}), "quantization_config = {'bits': 4} is not supported"),
  (LLAMA | dict(num_key_value_heads=4), 'num_attention_heads = 6 is not divisible by num_key_value_heads'),
  (LLAMA | dict(num_key_value_heads='2'), "num_key_value_heads is '2', not int or null"),
  (LLAMA | dict(hidden_size=37, head_dim=6), 'hidden_size = 37 is not divisible by num_attention_heads = 6'),
  (LLAMA | dict(head_dim=7), 'the heads have the odd size 7'),
  (LLAMA | dict(rms_norm_eps=0), 'rms_norm_eps = 0 must be'),
  (LLAMA | dict(hidden_size=None), 'hidden_size is None: it must be a positive integer'),
  (LLAMA | dict(model_type='mixtral'), "model_type = 'mixtral' is not supported, only gpt2, openai-gpt, l"),
  (QWEN3 | dict(use_sliding_window=True), 'use_sliding_window = True is not supported, only False'),
  (QWEN3 | dict(layer_types=['full_attention', 'sliding_attention']),
   "layer_types = 'sliding_attention' is not supported, only 'full_attention'"),
  (QWEN3 | dict(attention_bias=True), 'attention_bias = True is not supported'),
  (QWEN3 | dict(model_type='qwen3_moe'), "model_type = 'qwen3_moe' is not supported"),
  ({name: value for name, value in QWEN3.items() if name != 'head_dim'}, 'head_dim is missing')])
def test_what_gptjax_does_not_have_is_refused_with_the_field_and_its_value(tmp_path, values, says):
  (tmp_path / 'config.json').write_text(json.dumps(values))
  (tmp_path / 'model.safetensors').write_bytes(b'')
  with mesh_of(), pytest.raises(ValueError, match=re.escape(says)) as error:
    gptjax.load(tmp_path)
  assert '\n' not in str(error.value) and str(tmp_path / 'config.json') in str(error.value)


@pytest.mark.parametrize('change', [
  lambda t: {name.removeprefix('model.'): value for name, value in t.items()},
  lambda t: {**t, 'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(3, 'f4')},
  lambda t: {**t, 'lm_head.weight': t['model.embed_tokens.weight']},
  lambda t: {name.replace('model.embed_tokens', 'lm_head'): value for name, value in t.items()}],
  ids=['no prefix', 'frequencies', 'a copy of the embedding as head', 'the head alone'])
def test_every_spelling_of_the_tensors_gives_the_same_model(tmp_path, change):
  twin('llama', tie_word_embeddings=True).save_pretrained(tmp_path)
  plain = loaded(tmp_path)
  save_file(change(load_file(tmp_path / 'model.safetensors')), tmp_path / 'model.safetensors')
  same(plain, loaded(tmp_path))


def test_shards_and_half_precision_give_the_same_model(tmp_path):
  model = twin('qwen3').to(torch.bfloat16)
  model.save_pretrained(tmp_path / 'parts', max_shard_size='10KB')
  assert len(list((tmp_path / 'parts').glob('*.safetensors'))) > 3
  model.float().save_pretrained(tmp_path / 'whole')
  same(loaded(tmp_path / 'parts'), loaded(tmp_path / 'whole'))


@pytest.mark.parametrize('damage, says', [
  (lambda t: {name: value for name, value in t.items() if 'layers.1.self_attn.k_proj' not in name},
   'the tensor layers.1.self_attn.k_proj.weight [12, 36] is missing'),
  (lambda t: t | {'model.layers.1.mlp.up_proj.weight': np.zeros((36, 52), 'f4')},
   'layers.1.mlp.up_proj.weight is [36, 52], but the sizes in the folder require [52, 36]'),
  (lambda t: t | {'model.layers.0.self_attn.q_proj.bias': np.zeros(36, 'f4')},
   'the tensor layers.0.self_attn.q_proj.bias [36] is not part of the model'),
  (lambda t: t | {'score.weight': np.zeros((2, 36), 'f4')}, 'score.weight [2, 36] is not part of the model')])
def test_other_tensors_are_refused_with_their_names_and_shapes_in_the_file(tmp_path, damage, says):
  twin('llama').save_pretrained(tmp_path)
  save_file(damage(load_file(tmp_path / 'model.safetensors')), tmp_path / 'model.safetensors')
  with mesh_of(), pytest.raises(ValueError, match=re.escape(says)):
    gptjax.load(tmp_path)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('kind, sizes', [('llama', dict(fsdp=2, tensor=2)), ('qwen3', dict(fsdp=4)),
                                         ('llama', dict(tensor=4))])
def test_on_several_devices_each_has_its_shard_and_the_logits_are_the_same(tmp_path, kind, sizes):
  theirs = twin(kind, hidden_size=48, intermediate_size=32, num_attention_heads=8, num_key_value_heads=4,
                vocab_size=64)
  theirs.save_pretrained(tmp_path)
  tokens = tokens_for(theirs, batch=4)
  with mesh_of(**sizes):
    model, _ = gptjax.load(tmp_path)
    np.testing.assert_allclose(model(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
  shard = model.h.attn.c_kv.w[...].addressable_shards[0].data.shape
  k = theirs.config.head_dim
  assert shard == (2, 48 // sizes.get('fsdp', 1), 2, 4 // sizes.get('tensor', 1), k)
  same(jax.device_get(model), jax.device_get(loaded(tmp_path)))


def test_a_long_context_takes_no_memory(tmp_path):
  twin('llama', max_position_embeddings=1 << 24).save_pretrained(tmp_path)
  model = loaded(tmp_path)
  assert model.n_ctx == 1 << 24 and sum(leaf.size for leaf in jax.tree.leaves(model)) < 1e5


def test_a_model_that_transformers_refuses_to_open_is_not_exported():
  llama = VARIANTS['llama'] | {'model.n_embd': 36, 'model.n_head': 5, 'model.head_size': 8,
                               'model.n_kv_head': 1}
  why = export.export_unsupported_reason(tiny_config(**llama))
  assert 'hidden_size = 36 is not divisible by num_attention_heads = 5' in why
  assert export.export_unsupported_reason(tiny_config(**llama, **{'model.qk_norm': True})) is None


@pytest.mark.first_cases(3)
@pytest.mark.parametrize('changes', [
  {'model.positions': 'learned'}, {'model.norm_type': 'layer'}, {'model.bias': True}, {'model.mlp': 'plain'},
  {'model.activation_function': 'gelu_new'}, {'model.activation_function': 'relu_squared'},
  {'model.sliding_window': 9}, {'model.logit_soft_cap': 30.0}, {'model.norm': 'after'},
  {'model.scale_attn_weights': False}, {'model.scale_attn_by_inverse_layer_idx': True},
  {'model.qk_norm': True, 'model.bias': True}, {'model.embedding_dropout': 'matrix'}])
def test_a_llama_with_one_option_more_is_refused_by_the_name_of_the_option(tmp_path, changes):
  config = tiny_config(**VARIANTS['llama'] | changes)
  why, (name, value) = export.export_unsupported_reason(config), list(changes.items())[-1]
  assert f'in transformers does not support {name.removeprefix("model.")} = {value!r}' in why
  with mesh_of(), pytest.raises(ValueError, match=re.escape(why)):
    model = jax.jit(lambda: language_model(jax.random.key(0), config))()
    gptjax.save_pretrained(model, None, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_an_export_is_opened_by_transformers_of_both_spellings_of_the_rotation(tmp_path):
  theirs = twin('llama', rope_parameters={'rope_type': 'default', 'rope_theta': 500.0})
  theirs.save_pretrained(tmp_path / 'in')
  gptjax.save_pretrained(loaded(tmp_path / 'in'), None, tmp_path / 'out')
  written = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert written['rope_theta'] == 500 == written['rope_parameters']['rope_theta']
  tokens = tokens_for(theirs)
  for name in ('rope_theta', 'rope_parameters'):  # transformers 4 does not read the second
    fewer = {key: value for key, value in written.items() if key != name}
    (tmp_path / 'out' / 'config.json').write_text(json.dumps(fewer))
    np.testing.assert_array_equal(logits_of(opened(tmp_path / 'out'), tokens), logits_of(theirs, tokens))
