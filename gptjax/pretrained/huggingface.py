"""Reads a Hugging Face folder of GPT-2 or OpenAI-GPT: config.json and safetensors, with no PyTorch."""

import functools
import re
from pathlib import Path

import numpy as np
from safetensors import safe_open

from gptjax.data.tokenizers import hf_tokenizer, native
from gptjax.errors import InputError
from gptjax.files import json_files, lfs
from gptjax.files.json_files import shown
from gptjax.pretrained import layout
from gptjax.pretrained.checked_fields import check_fields, read_sizes

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
DTYPES = ('F32', 'F16', 'BF16')
# Masks and positions that older versions of transformers kept among the weights.
BUFFERS = re.compile(r'h\.\d+\.attn\.(bias|masked_bias)|position_ids')
PREFIX, HEAD = 'transformer.', 'lm_head.weight'
# What puts a prefix of its own before all names.
WRAPPERS = {'module.': ', as torch.nn.parallel names them', '_orig_mod.': ', as torch.compile names them'}

GPT2, GPT1 = 'gpt2', 'openai-gpt'
# Activations by the name in config.json -> config.model.activation_function; OpenAI-GPT's gelu is tanh.
ACTIVATIONS = {
  GPT2: {'gelu_new': 'gelu_new', 'gelu_pytorch_tanh': 'gelu_new', 'gelu': 'gelu', 'relu': 'relu',
         'silu': 'silu', 'swish': 'silu'},
  GPT1: {'gelu': 'gelu_new', 'relu': 'relu', 'silu': 'silu', 'swish': 'silu'}}
ACTIVATION_FIELD = {GPT2: 'activation_function', GPT1: 'afn'}
# What transformers takes where config.json does not say: {field: (value, type)}.
DEFAULTS = {'layer_norm_epsilon': (1e-5, (float, int)), 'resid_pdrop': (0.1, (float, int)),
            'tie_word_embeddings': (True, bool), 'n_inner': (None, (int, type(None))),
            'scale_attn_weights': (True, bool), 'scale_attn_by_inverse_layer_idx': (False, bool)}
SIZES = dict(n_layer='n_layer', n_head='n_head', n_embd='n_embd', n_ctx='n_positions', n_vocab='vocab_size')


def hf_name(name, model_type):
  """The name in a Hugging Face file, without its prefix: `h0/mlp/c_fc/w` -> `h.0.mlp.c_fc.weight`."""
  if model_type == GPT1:
    name = {'wte': 'tokens_embed', 'wpe': 'positions_embed'}.get(name, name)
  name = re.sub(r'^h(\d+)/', r'h.\1.', name).replace('/', '.')
  return re.sub(r'\.[wg]$', '.weight', re.sub(r'\.b$', '.bias', name)) + '.weight' * ('.' not in name)


def open_folder(folder, entries=None):
  """The Source of a Hugging Face folder.

  Args:
    folder: path.
    entries: how many of the embedding's rows are tokens, where no tokenizer in the folder says it.

  Raises:
    ValueError: what makes the folder unfit: not JSON, another architecture, an option that changes the
      model and is not supported, a file cut short, tensors that do not fit.
  """
  values = json_files.read(folder / 'config.json')
  fields = model_fields(folder / 'config.json', values)
  tensors, embedding = read_tensors(folder), hf_name('wte', values['model_type'])
  _refuse_prefix(folder, tensors, embedding)
  if fields['tie_word_embeddings'] and HEAD in tensors:
    _drop_copied_head(folder, tensors, embedding)
  tokenizer = hf_tokenizer.load_folder(folder, fields['n_vocab'])
  name_in_file = functools.partial(hf_name, model_type=values['model_type'])
  return layout.make_source(folder, tensors, name_in_file, fields, tokenizer, entries)


def model_fields(path, values):
  """Fields of `config.model` from what config.json says (ValueError for what cannot be honoured).

  `reorder_and_upcast_attn` says in what precision scores are computed; here that is always float32.
  """
  kind = values.get('model_type')
  if not isinstance(kind, str) or kind not in ACTIVATIONS:
    raise InputError(f'{path}: model_type {shown(kind)} is neither {GPT2} nor {GPT1}')
  for name in ('add_cross_attention', 'quantization_config', 'pruned_heads'):
    if values.get(name):
      raise InputError(f'{path}: {name} = {shown(values[name])} is not supported')
  activation = values.get(ACTIVATION_FIELD[kind], {GPT2: 'gelu_new', GPT1: 'gelu'}[kind])
  if not isinstance(activation, str) or activation not in ACTIVATIONS[kind]:
    raise InputError(f'{path}: {ACTIVATION_FIELD[kind]} = {shown(activation)} is not supported: it is none '
                     f'of {", ".join(ACTIVATIONS[kind])}')
  read = {name: values.get(name, value) for name, (value, _) in DEFAULTS.items()}
  if kind == GPT1:  # its code has neither of them
    read |= {name: DEFAULTS[name][0] for name in DEFAULTS if name.startswith(('n_inner', 'scale_'))}
  for name, value in read.items():
    if fault := json_files.layout_fault(value, DEFAULTS[name][1], name):
      raise InputError(f'{path}: {fault}')
  dims = read_sizes(path, values, SIZES)
  fields = dims | {
    'norm': 'before' if kind == GPT2 else 'after', 'activation_function': ACTIVATIONS[kind][activation],
    'n_inner': read['n_inner'] or 4 * dims['n_embd'], 'dropout': read['resid_pdrop'],
    **{name: value for name, value in read.items() if name not in ('n_inner', 'resid_pdrop')}}
  check_fields(path, fields, SIZES | {'dropout': 'resid_pdrop'})
  return fields


def read_tensors(folder):
  """{name without prefix: Tensor} of model.safetensors, or of the shards that its index names."""
  found, origin = {}, {}
  for path in _files(folder):
    lfs.refuse_pointer(path)
    for full_name, shape, dtype in native.call(f'{path} is damaged or cut short', _entries, path):
      name = full_name.removeprefix(PREFIX)
      if BUFFERS.fullmatch(name):
        continue
      if dtype not in DTYPES:
        raise InputError(f'{path}: the tensor {full_name} is of type {dtype}, not one of {", ".join(DTYPES)}')
      if name in found:
        raise InputError(f'{path}: the tensor {full_name} is in {origin[name]} too')
      found[name] = layout.StoredTensor(tuple(shape), functools.partial(_block, path, full_name))
      origin[name] = f'{path.name} as {full_name}'
  return found


def _entries(path):
  """[(name, shape, dtype)] of a safetensors file, in the order in which they lie there."""
  with safe_open(path, framework='np') as file:
    slices = [(name, file.get_slice(name)) for name in file.offset_keys()]
    return [(name, entry.get_shape(), entry.get_dtype()) for name, entry in slices]


def _files(folder):
  """The safetensors files of the folder; those of an index must hold what it says."""
  if (folder / SINGLE).exists():
    return [folder / SINGLE]
  index = folder / INDEX
  placed = json_files.read(index).get('weight_map')
  if not isinstance(placed, dict) or not placed or not all(
      isinstance(name, str) and name == Path(name).name for name in placed.values()):
    raise InputError(f'{index} has no weight_map from tensors to files beside it')
  files = [folder / name for name in sorted(set(placed.values()))]
  for file in files:
    if not file.is_file():
      raise InputError(f'{file} is missing, but {INDEX} names it')
  return files


def _block(path, name, index):
  # Opened for each tensor: a map that stays open would count all pages ever read as this process's.
  with safe_open(path, framework='np') as file:
    return file.get_slice(name)[index]


def _refuse_prefix(folder, tensors, embedding):
  """Refuses names that a wrapper has put something before: transformers finds none of those tensors."""
  if embedding in tensors:
    return
  for name, stem in ((name, stem) for name in tensors for stem in (embedding, HEAD)):
    before = name.removesuffix(stem)
    if before != name and before.endswith('.'):
      added = before.removesuffix(PREFIX)
      wrapper = WRAPPERS.get(added, '')
      raise InputError(f'{folder}: the tensors are named {name} and so on{wrapper}, but must be '
                       f'{PREFIX}{embedding} and so on: remove {added!r} from all names, '
                       f'{{name.removeprefix({added!r}): x for name, x in load_file(path).items()}}, and '
                       'save the file again')


def _drop_copied_head(folder, tensors, embedding):
  """Forgets an output matrix that is only a copy of the embedding; where it alone is there, it is both."""
  head, wte = tensors.pop(HEAD), tensors.get(embedding)
  if wte is None:
    tensors[embedding] = head
  elif head.shape != wte.shape or not all(
      np.array_equal(head.read(block), wte.read(block)) for block in _blocks(wte.shape)):
    raise InputError(f'{folder}: {HEAD} differs from {embedding}, but config.json ties them: set its '
                     'tie_word_embeddings to false')


def _blocks(shape):
  """Indices of a matrix's rows, some thousands at a time."""
  n, *others = shape
  return [(slice(start, min(start + 4096, n)), *map(slice, others)) for start in range(0, n, 4096)]
