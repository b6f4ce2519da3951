"""A modern decoder whose one dial is its depth: --config=configs/modern.py:DEPTH

Parameters      of depth 12: 162 M, of which 124 M multiply: the embedding is not the output layer
Tokens per step grows as the square root of the tokens: 524,288 at depth 12
Tokens          20 for each parameter that multiplies (Hoffmann et al. 2022)
Expect          at small sizes the loss of GPT-2 with AdamW for less than half of its training FLOPs
                (docs/howto/modern_recipe.md); larger sizes have not been trained
Meant for       any number of accelerators: lower train.microbatch_size, the sequences that all devices
                process at a time, if memory is short

Width, heads, batch, rate and steps follow from the depth, see `set_depth`; `recipe` has everything else, the
same at all depths. The text is that of gpt2_fineweb.py. `--config=modern` has depth 12.
"""

import math

from configs import gpt2_fineweb, gpt2_small

HEAD_SIZE = 64
TOKENS_PER_PARAMETER = 20
RATE, RATE_WIDTH = 4e-3, 128           # the rate that was best at this width
BATCH_TOKENS, BATCH_DEPTH = 2**19, 12  # the tokens per step of a depth


def get_config(depth='12'):
  if not depth.isdecimal() or not 0 < int(depth) < 1000:
    raise ValueError(f'{depth!r} is not a depth, which is a number of layers from 1 to 999: use '
                     '--config=modern:12 for instance')
  config = gpt2_fineweb.on_fineweb(gpt2_small.get_config())
  recipe(config)
  set_depth(config, int(depth))
  return config


def recipe(config):
  """Set what makes a model and its optimizer modern, at any size."""
  config.model.update(dict(positions='rotary', qk_norm=True, activation_function='relu_squared',
                           tie_word_embeddings=False))
  config.optimizer.update(dict(name='muon', schedule='wsd', decay_fraction=0.5, final_fraction=0.0,
                               embedding_rate=10.0))


def set_depth(config, depth):
  """Set shape, batch, rate and steps.

  The width is 64 per layer, in heads of 64. The rate falls with the square root of the width. The batch grows
  with the square root of the tokens, nearly as the largest batch that loses nothing does (Zhang et al. 2024),
  and is a power of two.

  Args:
    config: with context and vocabulary.
    depth: number of layers.
  """
  width, c = HEAD_SIZE * depth, config.model
  c.update(dict(n_layer=depth, n_head=width // HEAD_SIZE, n_embd=width))
  tokens = training_tokens(depth, c.n_vocab)
  batch = BATCH_TOKENS * (tokens / training_tokens(BATCH_DEPTH, c.n_vocab)) ** 0.5
  sequences = max(2 ** round(math.log2(batch / c.n_ctx)), 1)
  steps = math.ceil(tokens / (sequences * c.n_ctx))
  config.train.update(dict(steps=steps, batch_size=sequences, microbatch_size=min(sequences, 64)))
  config.optimizer.update(dict(learning_rate=rate(width), warmup_steps=steps // 10))


def rate(width):
  """The learning rate for a width."""
  return RATE * (RATE_WIDTH / width) ** 0.5


def training_tokens(depth, n_vocab):
  """Tokens for a depth: 20 for each weight of the blocks and of the output layer."""
  width = HEAD_SIZE * depth
  return TOKENS_PER_PARAMETER * (12 * depth * width ** 2 + n_vocab * width)
