"""Models to time: a config of each size, random tokens, and batch sizes that fit a device."""

import functools
import math
from typing import NamedTuple

import numpy as np

from gptjax.config import field_names, files
from gptjax.data.corpus.packing import segment_arrays
from gptjax.errors import InputError

MAX_BATCH_SIZE = 64   # sequences per step: larger batches are no faster
N_BATCH_SIZES = 3     # sizes to try, each half of the previous one
DOCUMENT = 512        # tokens of a packed document, on average
CPU_MODEL = dict(n_layer=6, n_head=6, n_embd=384, n_ctx=256, n_vocab=8192, scan=False)
TINY_MODEL = dict(n_layer=2, n_head=2, n_embd=32, n_ctx=32, n_vocab=96, scan=True)


class Size(NamedTuple):
  """config: name in configs/; model: fields to change; batch: sequences per step if the memory is unknown."""
  config: str
  model: dict
  batch: int
  dtype: str


SIZES = {'tiny': Size('default', TINY_MODEL, 4, 'float32'),
         'cpu': Size('default', CPU_MODEL, 16, 'float32'),
         '124M': Size('gpt2_small', {}, 16, 'bfloat16'),
         '355M': Size('gpt2_medium', {}, 8, 'bfloat16'),
         '774M': Size('gpt2_large', {}, 4, 'bfloat16'),
         '1558M': Size('gpt2_xl', {}, 2, 'bfloat16')}


def make_config(size, batch_size=0, changes=None):
  """The config of a benchmark, not resolved; works without ml_collections.

  Args:
    size: of SIZES.
    batch_size: sequences per step; 0: the default of the size.
    changes: {'model.dropout': 0.1, ...}.
  """
  name, model, batch, dtype = SIZES[size]
  config = files.shipped(name)
  for field, value in {**model, 'compute_dtype': dtype, 'dropout': 0.0, 'remat': 'none'}.items():
    setattr(config.model, field, value)
  config.data.seq_len = config.model.n_ctx
  config.train.batch_size = config.train.microbatch_size = batch_size or batch
  for field, value in (changes or {}).items():
    *sections, last = field.split('.')
    section = functools.reduce(lambda part, name: getattr(part, name, None), sections, config)
    if not hasattr(section, last):
      raise InputError(field_names.not_a_field(field))
    try:
      setattr(section, last, value)
    except TypeError:  # of ml_collections
      now = getattr(section, last)
      why = ('is a section: set one of its fields' if hasattr(now, 'items') else
             f'= {value!r} does not have the type of its default, {now!r}')
      raise InputError(f'config.{field} {why}') from None
  return config


def batch_sizes(size, memory):
  """Batch sizes to try, in descending order, each half of the previous one.

  The first is the largest power of two for which PyTorch should have room without rematerialization: 18 bytes
  per weight (weights, gradients and moments in float32, weights in bfloat16); per token 34 bytes per layer
  and width (Korthikanti et al. 2022, section 4.1, without attention's scores) and 10 per logit. gptjax needs
  less.

  Args:
    size: of SIZES.
    memory: bytes that the contender may use; None: unknown.
  """
  if memory is None:
    return [SIZES[size].batch]
  c = make_config(size).model
  n_weights = 12 * c.n_layer * c.n_embd**2 + (c.n_vocab + c.n_ctx) * c.n_embd
  bytes_per_sequence = c.n_ctx * (34 * c.n_layer * c.n_embd + 10 * c.n_vocab)
  upper_bound = int(min(MAX_BATCH_SIZE, max(1, (memory - 18 * n_weights) // bytes_per_sequence)))
  largest = 2**int(math.log2(upper_bound))
  return [largest >> i for i in range(N_BATCH_SIZES) if largest >> i]


def random_batch(config):
  """A batch of random tokens in the shape of the config; with packing, documents of random lengths."""
  rng = np.random.default_rng(0)
  shape = config.train.batch_size, config.data.seq_len
  tokens = lambda: rng.integers(0, config.model.n_vocab, shape, dtype=np.int32)
  batch = {'inputs': tokens(), 'targets': tokens()}
  if config.data.packing:
    begins = rng.random(shape) < 1 / DOCUMENT
    batch |= segment_arrays(begins, config.data.restart_positions)
  return batch
