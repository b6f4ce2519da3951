"""Maps tensors of released files, with their names and shapes, to the stacked weights of gptjax.

All formats use OpenAI's names, `h0/attn/c_attn/w`; each reader maps them to the names in its files. A tensor
in a file is the matrix [in, out] or vector of one layer; a weight of gptjax has dimensions for layers and
heads.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from gptjax import defaults
from gptjax.command import bars
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations
from gptjax.parallel import sharding

ALIGNMENT = 64  # bytes: on CPUs, JAX uses NumPy arrays at such addresses without a copy


class StoredTensor(NamedTuple):
  """A tensor in a file: its shape, and a function from slices (step 1), one per dimension, to that block."""
  shape: tuple
  read: Callable[[tuple], np.ndarray]


class WeightSource(NamedTuple):
  """A description of weights that are not loaded yet.

  folder: the folder of the weights, a Path or a Url.
  fields: {field of `config.model`: value} of their model.
  tokenizer: the tokenizer in the folder, or None.
  read: function of a tree of jax.ShapeDtypeStruct with shardings; returns float32 arrays.
  """
  folder: Any
  fields: dict
  tokenizer: Any
  read: Callable


def config_from_fields(fields):
  """Return a resolved config with these fields of `config.model`; the others have their defaults."""
  config = defaults.get_config()
  for name, value in fields.items():
    setattr(config.model, name, value)
  configs.resolve(config, '')
  return config


def weight_shapes(config):
  """Return the weights as nested dicts of jax.ShapeDtypeStruct; call it under `jax.set_mesh`."""
  return jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(language_model(jax.random.key(0), config))))


def named_leaves(tree):
  """Return [(path, leaf)] of nested dicts; a path is a tuple of names such as ('h', 'ln_1', 'g')."""
  return [(tuple(key.key for key in path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def weight_declarations(config):
  """Return the Declarations of the weights of `weight_shapes`, as nested dicts."""
  with sharding.abstract_mesh():
    return declarations(nnx.eval_shape(lambda: language_model(jax.random.key(0), config)))


def released_shapes(path, shape, facts, n_vocab):
  """Return [(OpenAI's name, shape in the files)] of the tensors of one weight.

  A matrix is [inputs, outputs] in the files, all other tensors of a layer are vectors.

  Args:
    path: path of the weight, as in `named_leaves`.
    shape: its shape in gptjax.
    facts: its Declaration.
    n_vocab: unpadded rows of the embedding in the files.
  """
  if len(shape) == len(facts.axes):
    return [('/'.join(path), facts.unpadded_shape(shape, n_vocab))]
  layers, *shape = shape
  return [('/'.join((f'{path[0]}{layer}', *path[1:])), facts.matrix_shape(shape)) for layer in range(layers)]


def make_source(folder, tensors, name_in_file, fields, tokenizer, entries=None):
  """Return the WeightSource of released tensors, after checking that they are exactly those of the model.

  Rows of the embedding beyond the tokenizer's entries are padding and are not read: `n_vocab` of the result
  is the number of entries.

  Args:
    folder: folder of the weights.
    tensors: {name in the files: Tensor}.
    name_in_file: function from OpenAI's name to the name in the files.
    fields: see WeightSource.
    tokenizer: see WeightSource.
    entries: number of entries of the tokenizer if the folder has none; None: the number of rows.

  Raises:
    ValueError: the first tensor that is missing, unexpected or has another shape, with both shapes.
  """
  config = config_from_fields(fields)
  with sharding.abstract_mesh():  # the files do not depend on the mesh
    shapes = weight_shapes(config)
  facts = dict(named_leaves(weight_declarations(config)))
  per_layer = sum(len(leaf.shape) > len(facts[path].axes) for path, leaf in named_leaves(shapes))
  if per_layer * fields['n_layer'] > len(tensors) + per_layer:  # else computing all names could take minutes
    raise InputError(f'{folder}: n_layer = {fields["n_layer"]} needs {per_layer} tensors for each layer, '
                     f'but there are {len(tensors)}: give the folder with all files, or correct n_layer')
  expected = {name_in_file(name): shape for path, leaf in named_leaves(shapes)
            for name, shape in released_shapes(path, leaf.shape, facts[path], fields['n_vocab'])}
  for name, shape in expected.items():
    if name not in tensors:
      present = ', '.join(sorted(tensors)[:4]) + ', ...' * (len(tensors) > 4)
      raise InputError(f'{folder}: the tensor {name} {list(shape)} is missing; there are {len(tensors)} '
                       f'({present})')
    if tuple(tensors[name].shape) != shape:
      raise InputError(f'{folder}: the tensor {name} is {list(tensors[name].shape)}, but the sizes in the '
                       f'folder require {list(shape)}')
  for name, tensor in tensors.items():
    if name not in expected:
      raise InputError(f'{folder}: the tensor {name} {list(tensor.shape)} is not part of the model')
  if tokenizer and tokenizer.n_vocab > fields['n_vocab']:
    raise InputError(f'{folder}: the tokenizer has {tokenizer.n_vocab} entries, but the model only '
                     f'{fields["n_vocab"]}: they do not belong together')

  entries = tokenizer.n_vocab if tokenizer else entries or fields['n_vocab']
  if entries < fields['n_vocab']:
    fields = fields | {'n_vocab': entries}
    for name in {name_in_file('wte'), name_in_file('lm_head')} & tensors.keys():
      tensors[name] = tensors[name]._replace(shape=(entries, *tensors[name].shape[1:]))

  def parts(path, shape):
    names = released_shapes(path, shape, facts[path], fields['n_vocab'])
    return [tensors[name_in_file(name)] for name, _ in names]

  return WeightSource(folder, fields, tokenizer, lambda shapes: _assemble(shapes, parts))


def _assemble(shapes, parts):
  """Read tensors into arrays, shard by shard.

  The largest weights are first, while the most memory is free.
  """
  shards = {path: _shards(target) for path, target in named_leaves(shapes)}
  total = sum(_bytes(bounds) for blocks in shards.values() for bounds in blocks)
  order = sorted(named_leaves(shapes), key=lambda leaf: -leaf[1].size)
  arrays = {}
  with bars.bar(total=total, unit='B', unit_scale=True, desc='weights', leave=False) as bar:
    for path, target in order:
      tensors, pieces = parts(path, target.shape), []
      for bounds, devices in shards[path].items():
        block = _block(tensors, target.shape, bounds, path[0] == 'h', bar)
        pieces += [jax.device_put(block, device) for device in devices]
        jax.block_until_ready(pieces)  # else the host would hold all blocks in transfer
      arrays[path] = jax.make_array_from_single_device_arrays(target.shape, target.sharding, pieces)
  return jax.tree.map_with_path(lambda path, _: arrays[tuple(key.key for key in path)], shapes)


def _shards(target):
  """Return {((start, stop), ...): [devices of this process with this block of an array]}."""
  blocks = {}
  for device, index in target.sharding.addressable_devices_indices_map(target.shape).items():
    bounds = tuple(s.indices(n)[:2] for s, n in zip(index, target.shape))
    blocks.setdefault(bounds, []).append(device)
  return blocks


def _bytes(bounds):
  return 4 * math.prod(stop - start for start, stop in bounds)


def _block(tensors, shape, bounds, stacked, bar):
  """Return the float32 block of a weight within `bounds`; padding rows, which are not in files, are 0."""
  raw = np.zeros(_bytes(bounds) + ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % ALIGNMENT
  block = raw[start:start + _bytes(bounds)].view(np.float32)
  block = block.reshape([stop - start for start, stop in bounds])
  if not stacked:
    _fill(block, tensors[0], shape, bounds)
    bar.update(block.nbytes)
    return block
  for out, layer in zip(block, range(*bounds[0]), strict=True):
    _fill(out, tensors[layer], shape[1:], bounds[1:])
    bar.update(out.nbytes)
  return block


def _fill(out, tensor, shape, bounds):
  """Fill a block with its rows of a tensor, and with its columns if these are one dimension."""
  (start, stop), *others = bounds
  unit = max(tensor.shape[0] // shape[0], 1)  # rows of the file per index of the first dimension
  index = [slice(start * unit, min(stop * unit, tensor.shape[0])), *map(slice, tensor.shape[1:])]
  cuts = [slice(*bound) for bound in others]
  if len(index) == 2 and tensor.shape[1] == shape[-1]:
    index[1], cuts[-1] = cuts[-1], slice(None)
    shape = *shape[:-1], index[1].stop - index[1].start
  if index[0].start < index[0].stop:
    read = tensor.read(tuple(index)).reshape(-1, *shape[1:])
    out[:len(read)] = read[(slice(None), *cuts)]
