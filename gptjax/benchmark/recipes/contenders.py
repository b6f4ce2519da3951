"""What is compared: GPT-2 with AdamW, the modern recipe, and the modern recipe without single ingredients.

A contender is a dict of config fields that are not at their defaults; shape, rate, seed and data are those of
the run.
"""

from typing import NamedTuple

from gptjax import defaults
from gptjax.config import files
from gptjax.storage.files.run_config import flat

BASELINE, MODERN = 'GPT-2, AdamW', 'modern recipe'
WITHOUT = 'without '  # begins the name of a contender that is the modern recipe without an ingredient
N_CTX, N_VOCAB = 128, 2048
WARMUP = 0.1  # of all steps

# Schedules of the baseline that are tried, of which the best is used.
SCHEDULES = {'cosine to a tenth': {}, 'warm-up-stable-decay': {'optimizer.schedule': 'wsd'},
             "the modern recipe's": {'optimizer.schedule': 'wsd', 'optimizer.decay_fraction': 0.5,
                                     'optimizer.final_fraction': 0.0}}

# {ingredient: the fields that configs/modern.py sets for it}
INGREDIENTS = {
  'Muon': ('optimizer.name',),
  'warm-up-stable-decay': ('optimizer.schedule', 'optimizer.decay_fraction', 'optimizer.final_fraction'),
  'faster embeddings': ('optimizer.embedding_rate',),
  'rotary positions': ('model.positions',),
  'relu^2': ('model.activation_function',),
  'norms of queries and keys': ('model.qk_norm',),
  'untied output layer': ('model.tie_word_embeddings',),
}


class Size(NamedTuple):
  """A size at which the contenders are compared.

  model: fields of its shape. tokens: of the runs of the baseline. batch_size: sequences per step. rates:
  {contender: learning rate at which its search begins}.
  """
  model: dict
  tokens: int
  batch_size: int
  rates: dict


SIZES = {
  'small': Size(dict(n_layer=3, n_head=4, n_embd=128), 409_600, 8, {BASELINE: 4e-3, MODERN: 4e-3}),
  'large': Size(dict(n_layer=4, n_head=6, n_embd=192), 409_600, 8, {BASELINE: 4e-3, MODERN: 4e-3}),
}


def fields_of(contender):
  """{field: value} of a contender."""
  if contender == BASELINE:
    return {}
  modern, without = flat(files.shipped('modern').to_dict()), contender.removeprefix(WITHOUT)
  return {field: modern[field] for ingredient, fields in INGREDIENTS.items() if ingredient != without
          for field in fields}


def make_config(size, fields, tokens, rate, seed, data):
  """The config of a run, unresolved.

  Args:
    size: of SIZES.
    fields: see `fields_of`.
    tokens: to train on, rounded to whole steps.
    rate: peak learning rate.
    seed: of weights and batches.
    data: fields of `config.data`.
  """
  config = defaults.get_config()
  config.model.update(dict(n_ctx=N_CTX, n_vocab=N_VOCAB, scan=False, **size.model))
  config.data.update(data)
  steps = max(round(tokens / (size.batch_size * N_CTX)), 1)
  config.train.update(dict(steps=steps, batch_size=size.batch_size, seed=seed))
  config.optimizer.update(dict(learning_rate=rate, warmup_steps=round(WARMUP * steps)))
  config.loss.chunk = 32
  config.update_from_flattened_dict(fields)
  return config
