"""What the released files call a tensor and how they shape it, and how stacked weights are made of them.

OpenAI's names, `h0/attn/c_attn/w`, serve for all formats; a reader says how its files spell them. A tensor
in a file is one layer's matrix [in, out] or vector; here a weight has all layers and its heads apart.
"""

import math
from collections.abc import Callable
from pathlib import Path
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

ALIGNMENT = 64  # bytes: JAX takes a NumPy array on such an address as it is, without a copy, on a CPU


class StoredTensor(NamedTuple):
  """A tensor in a file: its shape, and a function from slices (step 1), one a dimension, to that block."""
  shape: tuple
  read: Callable[[tuple], np.ndarray]


class WeightSource(NamedTuple):
  """Weights that were found and described, but not read yet.

  folder: the folder that holds them.
  fields: {field of `config.model`: value} that they were made for.
  tokenizer: the tokenizer that lies with them, or None.
  read: function of a tree of jax.ShapeDtypeStruct with shardings; gives float32 arrays, born there.
  """
  folder: Path
  fields: dict
  tokenizer: Any
  read: Callable


def config_from_fields(fields):
  """A resolved config of the model with these fields of `config.model`; the others as in default.py."""
  config = defaults.get_config()
  for name, value in fields.items():
    setattr(config.model, name, value)
  configs.resolve(config, '')
  return config


def weight_shapes(config):
  """The weights as nested dict of jax.ShapeDtypeStruct; call it under `jax.set_mesh`."""
  return jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(language_model(jax.random.key(0), config))))


def named_leaves(tree):
  """[(path, leaf)] of nested dicts, a path being a tuple of names such as ('h', 'ln_1', 'g')."""
  return [(tuple(key.key for key in path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def weight_declarations(config):
  """The Declarations of the weights of `weight_shapes`, as nested dicts."""
  with sharding.abstract_mesh():
    return declarations(nnx.eval_shape(lambda: language_model(jax.random.key(0), config)))


def released_shapes(path, shape, facts, n_vocab):
  """[(OpenAI's name, shape in the files)] of the tensors that make up one weight.

  A matrix is [inputs, outputs] in the files, everything else of a layer is a vector.

  Args:
    path: of the weight, as in `named_leaves`.
    shape: its shape here.
    facts: its Declaration.
    n_vocab: rows that a table of the vocabulary has in the files, where it is not padded.
  """
  if len(shape) == len(facts.axes):
    return [('/'.join(path), facts.real_shape(shape, n_vocab))]
  layers, *shape = shape
  return [('/'.join((f'{path[0]}{layer}', *path[1:])), facts.matrix(shape)) for layer in range(layers)]


def make_source(place, tensors, spell, fields, tokenizer, entries=None):
  """The Source of released tensors, after checking that they are those of the model, all and no others.

  Rows of the embedding beyond the tokenizer's entries are padding and are not read: the Source's `n_vocab` is
  the number of entries.

  Args:
    place: folder, for messages.
    tensors: {name in the files: Tensor}.
    spell: function from OpenAI's name to the name in the files.
    fields: see Source.
    tokenizer: see Source.
    entries: of the tokenizer, where that does not lie with the weights; None: as many as there are rows.

  Raises:
    ValueError: names the first tensor that is missing, extra or misshapen, with both shapes.
  """
  config = config_from_fields(fields)
  with sharding.abstract_mesh():  # what the files should hold depends on no mesh
    shapes = weight_shapes(config)
  facts = dict(named_leaves(weight_declarations(config)))
  each = sum(len(leaf.shape) > len(facts[path].axes) for path, leaf in named_leaves(shapes))
  if each * fields['n_layer'] > len(tensors) + each:  # or naming all would take minutes
    raise InputError(f'{place}: n_layer = {fields["n_layer"]} needs {each} tensors for each layer, '
                     f'but {len(tensors)} are there: name the folder that has all files, or mend n_layer')
  wanted = {spell(name): shape for path, leaf in named_leaves(shapes)
            for name, shape in released_shapes(path, leaf.shape, facts[path], fields['n_vocab'])}
  for name, shape in wanted.items():
    if name not in tensors:
      there = ', '.join(sorted(tensors)[:4]) + ', ...' * (len(tensors) > 4)
      raise InputError(f'{place}: the tensor {name} {list(shape)} is missing; {len(tensors)} are there '
                       f'({there})')
    if tuple(tensors[name].shape) != shape:
      raise InputError(f'{place}: the tensor {name} is {list(tensors[name].shape)}, but the sizes that the '
                       f'folder names ask for {list(shape)}')
  for name, tensor in tensors.items():
    if name not in wanted:
      raise InputError(f'{place}: the tensor {name} {list(tensor.shape)} belongs to no part of the model')
  if tokenizer and tokenizer.n_vocab > fields['n_vocab']:
    raise InputError(f'{place}: the tokenizer has {tokenizer.n_vocab} entries, but the model only '
                     f'{fields["n_vocab"]}: one of them is not the other\'s')

  entries = tokenizer.n_vocab if tokenizer else entries or fields['n_vocab']
  if entries < fields['n_vocab']:
    fields = fields | {'n_vocab': entries}
    for name in {spell('wte'), spell('lm_head')} & tensors.keys():
      tensors[name] = tensors[name]._replace(shape=(entries, *tensors[name].shape[1:]))

  def parts(path, shape):
    return [tensors[spell(name)] for name, _ in released_shapes(path, shape, facts[path], fields['n_vocab'])]

  return WeightSource(place, fields, tokenizer, lambda shapes: _assemble(shapes, parts))


def _assemble(shapes, parts):
  """Reads tensors into arrays, shard by shard.

  The largest weights come first: while they are read there is the most room.
  """
  shards = {path: _shards(target) for path, target in named_leaves(shapes)}
  total = sum(_bytes(bounds) for found in shards.values() for bounds in found)
  order = sorted(named_leaves(shapes), key=lambda leaf: -leaf[1].size)
  arrays = {}
  with bars.bar(total=total, unit='B', unit_scale=True, desc='weights', leave=False) as bar:
    for path, target in order:
      tensors, pieces = parts(path, target.shape), []
      for bounds, devices in shards[path].items():
        block = _block(tensors, target.shape, bounds, path[0] == 'h', bar)
        pieces += [jax.device_put(block, device) for device in devices]
        jax.block_until_ready(pieces)  # or the host would hold all that is still on its way
      arrays[path] = jax.make_array_from_single_device_arrays(target.shape, target.sharding, pieces)
  return jax.tree.map_with_path(lambda path, _: arrays[tuple(key.key for key in path)], shapes)


def _shards(target):
  """{((start, stop), ...): [devices of this process that hold this block of an array]}."""
  found = {}
  for device, index in target.sharding.addressable_devices_indices_map(target.shape).items():
    bounds = tuple(s.indices(n)[:2] for s, n in zip(index, target.shape))
    found.setdefault(bounds, []).append(device)
  return found


def _bytes(bounds):
  return 4 * math.prod(stop - start for start, stop in bounds)


def _block(tensors, shape, bounds, stacked, bar):
  """The float32 block of a weight within `bounds`; rows that are in no file (padding) are 0."""
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
  """Reads the rows that a block has of a tensor, and of these the columns, where those are one dimension."""
  (start, stop), *others = bounds
  unit = max(tensor.shape[0] // shape[0], 1)  # rows of the file in one of the first dimension here
  index = [slice(start * unit, min(stop * unit, tensor.shape[0])), *map(slice, tensor.shape[1:])]
  cuts = [slice(*bound) for bound in others]
  if len(index) == 2 and tensor.shape[1] == shape[-1]:
    index[1], cuts[-1] = cuts[-1], slice(None)
    shape = *shape[:-1], index[1].stop - index[1].start
  if index[0].start < index[0].stop:
    read = tensor.read(tuple(index)).reshape(-1, *shape[1:])
    out[:len(read)] = read[(slice(None), *cuts)]
