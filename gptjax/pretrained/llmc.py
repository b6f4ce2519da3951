"""Reads a model of llm.c: `gpt2_124M.bin`, `gpt2_124M_bf16.bin` or `model_STEP.bin`, without PyTorch.

https://github.com/karpathy/llm.c, `write_model` in train_gpt2.py and `gpt2_write_to_checkpoint` in
train_gpt2.cu. Little-endian: a header of 256 int32, then the tensors, all float32 (version 3) or all bfloat16
(version 5), each of all layers before the next. A matrix of a linear layer is [out, in]; the embedding has
rows of padding after those of the vocabulary, which are not read.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np

from gptjax.errors import InputError
from gptjax.pretrained import layout
from gptjax.pretrained.checked_fields import check_fields, check_heads, read_sizes
from gptjax.pretrained.openai import RELEASED
from gptjax.storage.files import lfs, local

MAGIC, HEADER = 20240326, 1024  # bytes of the header
DTYPES = {3: np.dtype('<f4'), 5: np.dtype(jnp.bfloat16)}  # by version
NAMES = 'max_seq_len', 'vocab_size', 'num_layers', 'num_heads', 'channels', 'padded_vocab_size'
SIZES = dict(n_ctx='max_seq_len', n_vocab='vocab_size', n_layer='num_layers', n_head='num_heads',
             n_embd='channels')
# What the other files of llm.c begin with.
OTHERS = {20240327: 'a debug state of llm.c', 20240328: 'a tokenizer of llm.c', 20240520: 'tokens of llm.c',
          20240527: 'the state of an optimizer of llm.c', 20240801: 'tokens of llm.c',
          20240803: 'a Llama 3 of llm.c'}
# The shape of each tensor of a layer in the file, in multiples of the width.
FACTORS = {'ln_1/g': (1,), 'ln_1/b': (1,), 'attn/c_attn/w': (3, 1), 'attn/c_attn/b': (3,),
           'attn/c_proj/w': (1, 1), 'attn/c_proj/b': (1,), 'ln_2/g': (1,), 'ln_2/b': (1,),
           'mlp/c_fc/w': (4, 1), 'mlp/c_fc/b': (4,), 'mlp/c_proj/w': (1, 4), 'mlp/c_proj/b': (1,)}


def kind(path):
  """Return what a file of llm.c is, MAGIC or another key of OTHERS; None for any other file."""
  if local.size(path) < 4:
    return None
  magic = int.from_bytes(local.part(path, 0, 4), 'little')
  return magic if magic == MAGIC or magic in OTHERS else None


def open_model(path, tokenizer_for):
  """Return the WeightSource of a model.

  Args:
    path: Path of the file.
    tokenizer_for: function of the number of rows of the embedding that returns the tokenizer, or None.

  Raises:
    InputError: another version, sizes that are not possible, or a file that is cut short.
  """
  lfs.refuse_pointer(path)
  if local.size(path) < HEADER:
    raise InputError(f'{path} is cut short: it has {local.size(path):,} bytes, less than its header')
  header = np.frombuffer(local.part(path, 0, HEADER), '<i4')
  if (magic := int(header[0])) != MAGIC:
    raise InputError(f'{path} is {OTHERS[magic]}, not a GPT-2 of llm.c: give model_STEP.bin or gpt2_124M.bin')
  version, values = int(header[1]), dict(zip(NAMES, header[2:8].tolist()))
  if version not in DTYPES:
    raise InputError(f'{path} has version {version} of the format, not 3 (float32) or 5 (bfloat16): write it '
                     'again with the present llm.c')
  fields = read_sizes(path, values, SIZES)
  fields |= RELEASED | {'norm': 'before', 'n_inner': 4 * fields['n_embd'], 'dropout': 0.0}
  check_fields(path, fields, SIZES | {'n_inner': '4 channels'})
  check_heads(path, fields, SIZES)
  if values['padded_vocab_size'] < fields['n_vocab']:
    raise InputError(f'{path}: padded_vocab_size = {values["padded_vocab_size"]} is less than vocab_size = '
                     f'{fields["n_vocab"]}: it is damaged')
  tensors = _tensors(path, fields, values['padded_vocab_size'], DTYPES[version])
  file_format = layout.FileFormat(lambda name: (name,), transposed=True)
  return layout.make_source(path, tensors, file_format, fields, tokenizer_for(fields['n_vocab']))


def _tensors(path, fields, padded_vocab, dtype):
  """Return {OpenAI's name: StoredTensor}; InputError unless the file has exactly their bytes."""
  n_layer, d = fields['n_layer'], fields['n_embd']
  per_layer = {name: tuple(factor * d for factor in factors) for name, factors in FACTORS.items()}
  n_weights = (padded_vocab + fields['n_ctx'] + 2) * d + n_layer * sum(map(math.prod, per_layer.values()))
  expected = HEADER + n_weights * dtype.itemsize
  if local.size(path) != expected:
    raise InputError(f'{path} is damaged or cut short: it has {local.size(path):,} bytes, but the sizes in '
                     f'its header need {expected:,}: get another copy')
  shapes = {'wte': (padded_vocab, d), 'wpe': (fields['n_ctx'], d)}
  shapes |= {f'h{layer}/{name}': shape for name, shape in per_layer.items() for layer in range(n_layer)}
  shapes |= {'ln_f/g': (d,), 'ln_f/b': (d,)}
  tensors, offset = {}, HEADER
  for name, shape in shapes.items():
    tensors[name] = layout.StoredTensor(shape, functools.partial(_block, path, dtype, shape, offset))
    offset += math.prod(shape) * dtype.itemsize
  tensors['wte'] = tensors['wte']._replace(shape=(fields['n_vocab'], d))
  return tensors


def _block(path, dtype, shape, offset, index):
  # Mapped for each tensor: an open map would count all pages read so far as memory of this process.
  return local.mapped(path, dtype, shape, offset)[index].astype(np.float32)
