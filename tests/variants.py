"""The model variants that every law of the model is tested for: changes of `conftest.tiny_config`."""

VARIANTS = {
  'gpt2': {},
  'gpt1': {'model.norm': 'after'},
  'untied': {'model.tie_word_embeddings': False},
  'lstm': {'model.architecture': 'lstm', 'model.n_inner': 48},
}
