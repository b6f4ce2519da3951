"""Maps tensors of released files, with their names and shapes, to the stacked weights of gptjax.

A weight of gptjax has dimensions for layers and heads. Of one layer it is a matrix [inputs, outputs], or a
vector, under OpenAI's name, `h0/attn/c_attn/w`. In the files of OpenAI that is one tensor; in other formats
it is transposed, or in several tensors, and has another name: `FileFormat`.
"""

import functools
import itertools
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
from gptjax.storage.files.records import log

ALIGNMENT = 64  # bytes: on CPUs, JAX uses NumPy arrays at such addresses without a copy


class StoredTensor(NamedTuple):
  """A tensor in a file: its shape, and a function from slices (step 1), one per dimension, to that block."""
  shape: tuple
  read: Callable[[tuple], np.ndarray]


class FileFormat(NamedTuple):
  """How the weights of one layer are stored in files.

  names: function from OpenAI's name of a weight to a tuple of the names of its tensors; the outputs of
    several tensors, side by side, are those of the weight.
  transposed: whether a matrix is [outputs, inputs] in the files.
  """
  names: Callable
  transposed: bool = False

  def tensors(self, path, shape, facts, n_vocab):
    """Return [[(name in the files, shape there) of each tensor] of each layer] of one weight.

    Args:
      path: path of the weight, as in `named_leaves`.
      shape: its shape in gptjax.
      facts: its Declaration.
      n_vocab: unpadded rows of the embedding in the files.
    """
    entries = []
    for weight, released in released_shapes(path, shape, facts, n_vocab):
      names = self.names(weight)
      part = *released[:-1], released[-1] // len(names)
      entries.append([(name, part[::-1] if self.turns(facts) else part) for name in names])
    return entries

  def turns(self, facts):
    """Whether the tensors of a weight are transposed; those of an embedding or a vector never are."""
    return self.transposed and bool(facts.inputs)


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


def report_dropout(source, rate):
  """Print a line on process 0 if a Llama or Qwen3 that was trained without dropout is to be trained with it.

  In SmolLM2 a few activations are thousands of times as large as the others, and attention relies on them.

  Args:
    source: WeightSource.
    rate: `config.model.dropout` of the run.
  """
  fields = source.fields
  without = fields.get('positions') == 'rotary' and not fields.get('dropout')
  if rate and without and jax.process_index() == 0:
    log(f'{source.folder} was trained without dropout, and may not learn with config.model.dropout = '
        f'{rate:g}: --config.model.dropout=0')


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


def make_source(folder, tensors, file_format, fields, tokenizer, entries=None):
  """Return the WeightSource of released tensors, after checking that they are exactly those of the model.

  Rows of the embedding beyond the tokenizer's entries are padding and are not read: `n_vocab` of the result
  is the number of entries.

  Args:
    folder: folder of the weights.
    tensors: {name in the files: StoredTensor}.
    file_format: their FileFormat.
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
  _check_layers(folder, tensors, file_format, fields['n_layer'], shapes, facts)
  expected = {name: shape for path, leaf in named_leaves(shapes)
              for layer in file_format.tensors(path, leaf.shape, facts[path], fields['n_vocab'])
              for name, shape in layer}
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
    tables = {*file_format.names('wte'), *file_format.names('lm_head')}
    for name in tables & tensors.keys():
      tensors[name] = tensors[name]._replace(shape=(entries, *tensors[name].shape[1:]))

  def parts(path, shape):
    turns = file_format.turns(facts[path])
    layers = file_format.tensors(path, shape, facts[path], fields['n_vocab'])
    return [_joined([tensors[name] for name, _ in layer], turns) for layer in layers]

  return WeightSource(folder, fields, tokenizer, lambda shapes: _assemble(shapes, parts))


def _check_layers(folder, tensors, file_format, n_layer, shapes, facts):
  """Raise InputError if there are too few tensors for the layers: computing all names could take minutes."""
  per_layer = 0
  for path, leaf in named_leaves(shapes):
    if len(leaf.shape) > len(facts[path].axes):
      per_layer += len(file_format.names('/'.join((f'{path[0]}0', *path[1:]))))
  if per_layer * n_layer > len(tensors) + per_layer:
    raise InputError(f'{folder}: n_layer = {n_layer} needs {per_layer} tensors for each layer, '
                     f'but there are {len(tensors)}: give the folder with all files, or correct n_layer')


def _joined(tensors, transposed):
  """Return the StoredTensor [inputs, outputs] whose outputs are those of several tensors."""
  if transposed:
    tensors = [StoredTensor(tensor.shape[::-1], functools.partial(_read_transposed, tensor))
               for tensor in tensors]
  if len(tensors) == 1:
    return tensors[0]
  stops = list(itertools.accumulate(tensor.shape[-1] for tensor in tensors))

  def read(index):
    (*others, columns), blocks = index, []
    start, end, _ = columns.indices(stops[-1])
    for tensor, stop in zip(tensors, stops):
      before = stop - tensor.shape[-1]
      first, last = max(start, before), min(end, stop)
      if first < last:
        blocks.append(tensor.read((*others, slice(first - before, last - before))))
    return np.concatenate(blocks, axis=-1)

  return StoredTensor((*tensors[0].shape[:-1], stops[-1]), read)


def _read_transposed(tensor, index):
  return tensor.read(index[::-1]).T


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
