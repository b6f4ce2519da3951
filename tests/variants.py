"""What every law of the model and of the optimizer is tested for; a new one is one line here.

VARIANTS: {name: changes of `conftest.tiny_config`}.
OPTIMIZERS: values of `config.optimizer.name`.
"""

GPT1 = {'model.norm': 'after', 'model.scale_residual_init': False, 'model.wpe_init_std': 0.02}

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
  'lstm': {'model.architecture': 'lstm', 'model.n_inner': 48},
  'lstm, matrix dropout': {'model.architecture': 'lstm', 'model.n_inner': 48,
                           'model.embedding_dropout': 'matrix'},
}

OPTIMIZERS = ('adamw', 'muon', 'openai_adam')
