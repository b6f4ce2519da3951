"""Reads OpenAI's files: GPT-2's TensorFlow checkpoints and GPT-1's ten arrays."""

import functools
import itertools
import math

import numpy as np

from gptjax.data.corpus import pipeline
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.pretrained import layout
from gptjax.pretrained.checked_fields import check_fields, check_heads, read_sizes
from gptjax.storage.files import access, json_files, lfs, local

GPT2_HPARAMS, GPT2_INDEX = 'hparams.json', 'model.ckpt.index'
GPT1_SHAPES, GPT1_PIECES = 'params_shapes.json', 10
GPT1_HEAD_SIZE = 64  # of the released model; not in its files
# Constants of the released code, as fields of config.model.
RELEASED = dict(activation_function='gelu_new', layer_norm_epsilon=1e-5, scale_attn_weights=True,
                scale_attn_by_inverse_layer_idx=False, tie_word_embeddings=True)
# GPT-1's tensors in saved order: EMBEDDINGS, then LAYER_TENSORS for each layer.
EMBEDDINGS = ('wpe', 'wte')
LAYER_TENSORS = ('attn/c_attn/w', 'attn/c_attn/b', 'attn/c_proj/w', 'attn/c_proj/b', 'ln_1/g', 'ln_1/b',
                 'mlp/c_fc/w', 'mlp/c_fc/b', 'mlp/c_proj/w', 'mlp/c_proj/b', 'ln_2/g', 'ln_2/b')


def open_gpt2(folder):
  """Return the WeightSource of a folder with `hparams.json` and a TensorFlow checkpoint `model.ckpt`.

  Raises:
    ValueError: a file is missing or damaged, or a tensor does not match the sizes in hparams.json.
  """
  path = folder / GPT2_HPARAMS
  names = ('n_layer', 'n_head', 'n_embd', 'n_ctx', 'n_vocab')
  fields = read_sizes(path, json_files.read(path), {name: name for name in names})
  check_fields(path, fields, {})
  check_heads(path, fields, {name: name for name in names})
  fields |= RELEASED | {'norm': 'before', 'n_inner': 4 * fields['n_embd'], 'dropout': 0.0}
  for file in local.matching(folder, 'model.ckpt*'):
    lfs.refuse_pointer(file)
  errors = _tensorflow().errors.OpError, ValueError, RuntimeError, LookupError, OSError
  try:
    reader = _tensorflow().train.load_checkpoint(str(folder / 'model.ckpt'))
    shapes = reader.get_variable_to_shape_map()
    dtypes = {str(dtype.as_numpy_dtype) for dtype in reader.get_variable_to_dtype_map().values()}
  except errors as error:
    raise InputError(f'{folder}/model.ckpt is not a TensorFlow checkpoint: {_one_line(error)}') from None
  if dtypes - {str(np.float32)}:
    raise InputError(f'{folder}/model.ckpt: its tensors are not all float32')

  def block(name, index):
    try:
      value = reader.get_tensor(name)
    except errors as error:
      raise InputError(f'{folder}/model.ckpt: {name} is damaged or cut short: {_one_line(error)}') from None
    return value.reshape(_matrix(value.shape))[index]

  tensors = {name: layout.StoredTensor(_matrix(shape), functools.partial(block, name))
             for name, shape in shapes.items()}
  tokenizer = loading.load(str(folder)) if access.is_file(folder / 'encoder.json') else None
  file_format = layout.FileFormat(lambda name: (f'model/{name}',))
  return layout.make_source(folder, tensors, file_format, fields, tokenizer)


def _tensorflow():
  return pipeline.import_tensorflow()


def _one_line(error):
  return ' '.join(str(error).split())


def _matrix(shape):
  """Return the shape without the leading 1 of OpenAI's matrices, the width of a convolution."""
  return tuple(shape[1:]) if len(shape) == 3 and shape[0] == 1 else tuple(shape)


def open_gpt1(folder):
  """Return the WeightSource of a folder with `params_shapes.json` and `params_0.npy` to `params_9.npy`.

  The arrays are one flat vector in ten parts; the head size is 64, which is not in the files.

  Raises:
    ValueError: a file is missing or damaged, or the arrays do not match the shapes.
  """
  shapes = _gpt1_shapes(folder / GPT1_SHAPES)
  pieces = [_piece(folder / f'params_{i}.npy') for i in range(GPT1_PIECES)]
  starts = [0, *itertools.accumulate(map(math.prod, shapes))]
  length = sum(map(len, pieces))
  if length != starts[-1]:
    raise InputError(f'{folder}: params_0.npy to params_{GPT1_PIECES - 1}.npy hold {length} numbers, but '
                     f'{GPT1_SHAPES} requires {starts[-1]}')
  n_layer = (len(shapes) - len(EMBEDDINGS)) // len(LAYER_TENSORS)
  names = [*EMBEDDINGS, *(f'h{i}/{name}' for i in range(n_layer) for name in LAYER_TENSORS)]
  tensors = {}
  for name, shape, start in zip(names, map(_matrix, shapes), starts):
    tensors[name] = layout.StoredTensor(shape, functools.partial(_block, pieces, int(start), shape))
  (n_ctx, d), (n_vocab, _) = tensors['wpe'].shape, tensors['wte'].shape
  if d % GPT1_HEAD_SIZE:
    raise InputError(f'{folder}/{GPT1_SHAPES}: width {d} is not a multiple of the head size of GPT-1, '
                     f'{GPT1_HEAD_SIZE}')
  fields = RELEASED | dict(n_layer=n_layer, n_head=d // GPT1_HEAD_SIZE, n_embd=d, n_ctx=n_ctx,
                           n_vocab=n_vocab, norm='after', n_inner=4 * d, dropout=0.1)
  tokenizer = loading.load(str(folder)) if access.is_file(folder / 'encoder_bpe_40000.json') else None
  return layout.make_source(folder, tensors, layout.FileFormat(lambda name: (name,)), fields, tokenizer)


def _gpt1_shapes(path):
  """Return the list of shapes: two, and twelve for each layer."""
  shapes = json_files.read(path, list)
  valid = all(isinstance(shape, list) and shape and all(type(n) is int and 0 < n < 2**31 for n in shape)
              for shape in shapes)
  if not valid or len(shapes) < 2 + len(LAYER_TENSORS) or (len(shapes) - 2) % len(LAYER_TENSORS) or not (
      len(shapes[0]) == len(shapes[1]) == 2):
    raise InputError(f'{path} is not a list of the shapes of GPT-1: positions, tokens, and '
                     f'{len(LAYER_TENSORS)} for each layer')
  return shapes


def _piece(path):
  """Return a flat float32 array, memory-mapped."""
  lfs.refuse_pointer(path)
  try:
    piece = np.load(path, mmap_mode='r', allow_pickle=False)
  except OSError as error:
    raise InputError(f'{path}: {error.strerror or error}') from None
  except Exception as error:  # NumPy evaluates the header, which has the size
    raise InputError(f'{path} is damaged or truncated, or not an array: {_one_line(error)}') from None
  if piece.dtype != np.float32 or piece.ndim != 1:
    raise InputError(f'{path} is {piece.dtype}{list(piece.shape)}, not a float32 vector')
  return piece


def _block(pieces, start, shape, index):
  """Return a block of the array of this shape that starts at `start` of the concatenated pieces."""
  rows, *columns = index
  width = math.prod(shape[1:])
  first, last = start + rows.start * width, start + rows.stop * width
  parts = []
  for piece in pieces:
    parts.append(piece[max(first, 0):max(last, 0)])
    first, last = first - len(piece), last - len(piece)
  return np.concatenate(parts).reshape(-1, *shape[1:])[(slice(None), *columns)]
