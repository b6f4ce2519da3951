"""What every law of the model and of the step is tested for; a new one is one line here.

VARIANTS: {name: changes of `conftest.tiny_config`} of models.
SIMILAR: those that the default run leaves out where a law is slow to test; others have most of their options.
FLOAT32: modules whose weights compute in float32, besides those of norms.
OPTIMIZERS: values of `config.optimizer.name`.
SCHEDULES: values of `config.optimizer.schedule`.
OBJECTIVES: {name: changes of `conftest.tiny_config`} of losses.
"""

import pytest

GPT1 = {'model.norm': 'after', 'model.scale_residual_init': False, 'model.wpe_init_std': 0.02}

LLAMA = {'model.positions': 'rotary', 'model.norm_type': 'rms', 'model.bias': False, 'model.mlp': 'gated',
         'model.activation_function': 'silu', 'model.n_inner': 48, 'model.n_kv_head': 2,
         'model.tie_word_embeddings': False}

VARIANTS = {
  'gpt2': {},
  'gpt1': GPT1,
  'untied': {'model.tie_word_embeddings': False},
  'exact gelu': {'model.activation_function': 'gelu'},
  'relu': {'model.activation_function': 'relu'},
  'silu': {'model.activation_function': 'silu'},
  'narrow mlp': {'model.n_inner': 48},
  'unscaled attention': {'model.scale_attn_weights': False},
  'attention scaled by layer': {'model.scale_attn_by_inverse_layer_idx': True},
  'gpt1, untied, relu': {**GPT1, 'model.tie_word_embeddings': False, 'model.activation_function': 'relu'},
  'matrix dropout': {**GPT1, 'model.embedding_dropout': 'matrix'},
  'rotary': {'model.positions': 'rotary', 'model.rotary_base': 100.0},
  'rms': {'model.norm_type': 'rms'},
  'no bias': {'model.bias': False},
  'relu squared': {'model.activation_function': 'relu_squared'},
  'swiglu': {'model.mlp': 'gated', 'model.activation_function': 'silu', 'model.n_inner': 48},
  'grouped-query attention': {'model.n_kv_head': 2},
  'normalized queries and keys': {'model.qk_norm': True},
  'wide heads': {'model.head_size': 24},
  'soft cap': {'model.logit_soft_cap': 0.5},
  'sliding window': {'model.sliding_window': 5},
  'gpt1, rms, one head of keys': {**GPT1, 'model.norm_type': 'rms', 'model.n_kv_head': 1},
  'llama': LLAMA,
  'qwen3': {**LLAMA, 'model.qk_norm': True, 'model.head_size': 12, 'model.tie_word_embeddings': True},
  'everything': {**LLAMA, 'model.qk_norm': True, 'model.head_size': 12, 'model.sliding_window': 7,
                 'model.logit_soft_cap': 5.0, 'model.activation_function': 'relu_squared'},
  'lstm': {'model.architecture': 'lstm', 'model.n_inner': 48},
  'lstm, matrix dropout': {'model.architecture': 'lstm', 'model.n_inner': 48,
                           'model.embedding_dropout': 'matrix'},
}

SIMILAR = (
  'gpt1', 'untied', 'exact gelu', 'relu', 'silu', 'narrow mlp', 'unscaled attention', 'rotary', 'rms',
  'no bias', 'relu squared', 'swiglu', 'grouped-query attention', 'normalized queries and keys',
  'wide heads', 'soft cap', 'sliding window', 'llama', 'qwen3', 'lstm, matrix dropout')
assert VARIANTS.keys() >= set(SIMILAR)


def few(names):
  """Names of variants as parameters of a test; those in `SIMILAR` are for the slow run."""
  return [pytest.param(name, marks=pytest.mark.slow) if name in SIMILAR else name for name in names]


FLOAT32 = ('clf',)

OPTIMIZERS = ('adamw', 'muon', 'openai_adam')

SCHEDULES = ('cosine', 'linear', 'constant', 'wsd', 'warmup_linear')

OBJECTIVES = {
  'next token': {},
  'soft cap': {'model.logit_soft_cap': 0.5},
}
