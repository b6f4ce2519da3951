"""Writes a folder that `transformers` can load: GPT-2 or OpenAI-GPT, safetensors, tokenizer."""

import json

import jax
import numpy as np
from flax import nnx
from safetensors import safe_open

from gptjax.command import bars
from gptjax.data.tokenizers import hf_folder
from gptjax.errors import InputError
from gptjax.model.gpt import GPT, Block
from gptjax.model.lstm import LSTM
from gptjax.model.parameters import declaration
from gptjax.parallel import sharding
from gptjax.pretrained import layout
from gptjax.pretrained.huggingface import (
  ACTIVATION_FIELD,
  ACTIVATIONS,
  GPT1,
  GPT2,
  PREFIX,
  SINGLE,
  hf_name,
  model_fields,
)
from gptjax.pretrained.tokenizer_files import transformers_files
from gptjax.storage import checkpoint, digests
from gptjax.storage.files import access, atomic, bounded, buckets, json_files, local, paths, spool
from gptjax.storage.files.paths import Url
from gptjax.train.step import graph

CONFIG = 'config.json'
# Attributes of a module that affect how it is computed, but not its function.
COMPUTE_FIELDS = ('dtype', 'kernel', 'remat', 'scanned')


def save_pretrained(model, tokenizer, folder):
  """Write a model and its tokenizer so that `transformers` loads them without options.

  `AutoModelForCausalLM.from_pretrained(folder)` has the same logits and `AutoTokenizer.from_pretrained` the
  same ids (see `tokenizer_files` for the exceptions of GPT-1). Weights are float32, padding is removed. A new
  folder is created atomically. In an existing folder, the weights are replaced atomically; it must contain
  the same model at another step, or no model. In a bucket, config.json comes last, without which nothing
  loads the folder; later the weights, one object, are all that is replaced.

  Args:
    model: a `gptjax.model.gpt.GPT` on devices of this process; sharded weights are gathered one at a time.
    tokenizer: any tokenizer of gptjax, or None.
    folder: path, here or in a bucket.

  Raises:
    ValueError: `transformers` does not support the model or tokenizer, or the folder contains another one or
      cannot be written.
  """
  params = nnx.to_pure_dict(nnx.state(model))
  if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
    raise InputError('the model is on devices of several hosts: export its checkpoint with one process, '
                     'python -m gptjax.pretrained export')
  write_folder(folder_files(model, tokenizer), params, folder, {})


def checkpoint_exporter(model, tokenizer, folder):
  """Return a function that exports a valid checkpoint, given its folder, without using a device.

  Args:
    model: a GPT whose weights may be jax.ShapeDtypeStruct.
    tokenizer: any tokenizer of gptjax.
    folder: folder of the export; the header of its weights has the step.

  Raises:
    ValueError: as `save_pretrained`, immediately instead of at the first checkpoint.
  """
  folder = paths.location(folder)
  files = folder_files(model, tokenizer)
  check_folder(folder, files)
  abstract = nnx.to_pure_dict(nnx.state(model))

  def export(path):
    facts = {'step': path.name, 'arrays': digests.arrays_digest(checkpoint.read_manifest(path))}
    if not facts.items() <= exported_facts(folder).items():
      write_folder(files, checkpoint.read_weights(path, abstract), folder, facts)
  return export


def export_unsupported_reason(config):
  """Return why `transformers` does not support the model of a resolved config; None if it does."""
  try:
    with jax.set_mesh(sharding.single_mesh()):  # sizes do not depend on the mesh
      config_json(nnx.merge(graph(config), layout.weight_shapes(config)), None)
  except InputError as error:
    return str(error)
  return None


def exported_facts(folder):
  """Return the facts in the header of the exported weights in a folder; {} without weights."""
  if isinstance(folder, Url):
    return _facts_in_bucket(folder / SINGLE) if access.is_file(folder / CONFIG) else {}
  if not access.is_file(folder / SINGLE):
    return {}
  with safe_open(folder / SINGLE, framework='np') as file:
    return file.metadata() or {}


def _facts_in_bucket(url):
  """Return the facts in the header of an object in the format of the `safetensors` library."""
  if buckets.entry(url) is None:
    return {}
  size = int.from_bytes(buckets.read_ranges(url, [(0, 8)])[0], 'little')
  if size > bounded.MAX_FILE_BYTES:
    raise InputError(f'{url} is damaged: remove it')
  header = json_files.parse(buckets.read_ranges(url, [(8, 8 + size)])[0])
  return header.get('__metadata__', {})


def folder_files(model, tokenizer):
  """Return {name: bytes} of all files except the weights."""
  values = config_json(model, tokenizer)
  ends = {name: values[name] for name in ('bos_token_id', 'eos_token_id')}
  files = {name: f'{json.dumps(content, indent=2, sort_keys=True)}\n'.encode()
           for name, content in ((CONFIG, values), (hf_folder.GENERATION, ends))}
  return files | (transformers_files(tokenizer, model.n_ctx) if tokenizer else {})


def config_json(model, tokenizer):
  """Return the content of config.json, a dict; ValueError for features that `transformers` does not have."""
  if isinstance(model, LSTM):
    raise InputError('transformers does not have this LSTM: only a Transformer can be exported')
  if type(model) is not GPT or not isinstance(model.h, Block):
    raise InputError(f'only a gptjax.model.gpt.GPT as returned by `gptjax.load` can be exported, not '
                     f'{type(model).__name__}{" with unstacked layers" * (type(model) is GPT)}')
  block, end = model.h, tokenizer.end_of_text if tokenizer else None
  ends = list(tokenizer.eos_ids) if tokenizer else []
  if tokenizer and tokenizer.n_vocab > model.n_vocab:
    raise InputError(f'the tokenizer has {tokenizer.n_vocab} entries, but the model only {model.n_vocab}')
  kind = GPT2 if model.norm == 'before' else GPT1
  names = {activation: name for name, activation in reversed(ACTIVATIONS[kind].items())}
  n_embd, n_inner = model.n_embd, block.mlp.c_fc.output_sizes[0]
  if block.mlp.activation not in names:
    raise InputError(f'{"GPT-2" if kind == GPT2 else "OpenAI-GPT"} in transformers does not support '
                     f'activation_function = {block.mlp.activation!r}')
  config = {
    'model_type': kind, 'vocab_size': model.n_vocab, 'n_positions': model.n_ctx, 'n_embd': n_embd,
    'n_layer': model.n_layer, 'n_head': model.n_head,
    ACTIVATION_FIELD[kind]: names[block.mlp.activation], 'layer_norm_epsilon': block.ln_1.epsilon,
    'tie_word_embeddings': model.tied, 'dtype': 'float32', 'bos_token_id': end,
    'eos_token_id': ends if len(ends) > 1 else ends[0] if ends else None,
    **dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), model.dropout)}
  if kind == GPT2:
    config |= {'architectures': ['GPT2LMHeadModel'], 'scale_attn_weights': block.attn.scaled,
               'scale_attn_by_inverse_layer_idx': block.attn.scaled_by_layer,
               'n_inner': None if n_inner == 4 * n_embd else n_inner}
    check_round_trip(config, model)
    return config
  for name, value, supported in (
      ('n_inner', n_inner, 4 * n_embd), ('scale_attn_weights', block.attn.scaled, True),
      ('scale_attn_by_inverse_layer_idx', block.attn.scaled_by_layer, False)):
    if value != supported:
      raise InputError(f'OpenAI-GPT in transformers does not support {name} = {value}, only {supported}')
  config['architectures'] = ['OpenAIGPTLMHeadModel']
  check_round_trip(config, model)
  return config


def check_round_trip(config, model):
  """Raise InputError if a model differs from the one that config.json describes.

  Args:
    config: the content of config.json.
    model: a GPT.
  """
  fields = model_fields('config.json', config)
  with jax.set_mesh(sharding.single_mesh()):
    read = layout.config_from_fields(fields)
    loaded = nnx.merge(graph(read), layout.weight_shapes(read))
  # Padding rows of the vocabulary are not written.
  expected, actual = (_parts(module, model.n_vocab) for module in (loaded, model))
  for name in sorted(actual.keys() | expected.keys()):
    if actual.get(name) != expected.get(name):
      raise InputError(f'transformers does not have this model: {name} is {actual.get(name, "absent")}, but '
                       f'in its {config["model_type"]} {expected.get(name, "absent")}')


def _parts(module, n_vocab, prefix=''):
  """Return {name: type, value, or declaration and shape in a file} of all attributes of a module."""
  entries = {prefix or 'model': type(module).__name__}
  for name, value in vars(module).items():
    if name in COMPUTE_FIELDS or name.startswith('_pytree__'):
      continue
    path = f'{prefix}/{name}'.lstrip('/')
    if isinstance(value, nnx.Module):
      entries |= _parts(value, n_vocab, path)
    else:
      entries[path] = value
      if isinstance(value, nnx.Variable):
        facts = declaration(value)
        entries[path] = facts, facts.unpadded_shape(value.shape, n_vocab)
  return entries


def check_folder(folder, files):
  """Raise ValueError if one of these files in the folder has another content."""
  for name, content in files.items():
    if access.is_file(folder / name) and access.read(folder / name) != content:
      raise InputError(f'{folder} has another model or tokenizer ({name} differs): export to another '
                       'folder')


def write_folder(files, params, folder, facts):
  """Write or update a folder, here or in a bucket, atomically (see `save_pretrained`).

  Args:
    files: from `folder_files`.
    params: nested dict of weights, NumPy or JAX arrays.
    folder: path.
    facts: {str: str} for the header of the weights.
  """
  folder = paths.location(folder)
  check_folder(folder, files)
  if isinstance(folder, Url):
    _put_folder(files, params, folder, facts)
    return
  target = folder if access.is_folder(folder) else atomic.new_name(folder)
  try:
    atomic.make_folders(folder.parent)
    atomic.remove_leftovers(folder.parent, folder.name)
    if target == folder:
      atomic.remove_leftovers(folder, SINGLE)
    else:
      access.make_folder(target)
    for name, content in files.items():
      if not access.is_file(target / name):
        atomic.write(target / name, content)
    with atomic.replacing(target / SINGLE) as file:
      write_safetensors(file, released_tensors(params, json.loads(files[CONFIG])), facts)
    if target != folder:
      atomic.rename(target, folder)
  except OSError as error:
    if target != folder:
      atomic.remove(target)
    raise InputError(f'{folder} cannot be written: {error.strerror or error}') from None


def _put_folder(files, params, url, facts):
  """`write_folder` in a bucket, after `check_folder`: the weights are written on this machine first."""
  missing = [name for name in files if not access.is_file(url / name)]
  with spool.temporary(url / SINGLE) as path:
    with local.opened(path, 'xb') as file:
      write_safetensors(file, released_tensors(params, json.loads(files[CONFIG])), facts)
    for name in missing:
      if name != CONFIG:
        access.write(url / name, files[name])
    spool.put_file(url / SINGLE, path)
  if CONFIG in missing:
    access.write(url / CONFIG, files[CONFIG])


def released_tensors(params, values):
  """Return [(stacked weight, [(name in a Hugging Face file, its shape there) of each layer])].

  Args:
    params: nested dict of weights, or of their gradients.
    values: the content of config.json.
  """
  def full_name(name):
    name = hf_name(name, values['model_type'])
    return name if name.startswith('lm_head') else PREFIX + name
  config, entries = layout.config_from_fields(model_fields('config.json', values)), []
  declared = dict(layout.named_leaves(layout.weight_declarations(config)))
  for path, leaf in layout.named_leaves(params):
    facts = declared[path]
    tensors = layout.released_shapes(path, leaf.shape, facts, values['vocab_size'])
    named = [(full_name(name), shape) for name, shape in tensors]
    entries.append((leaf if leaf.ndim > len(facts.axes) else leaf[None], named))
  return entries


def unstack_tensors(stacked, named):
  """Return {name: float32 array} of one entry of `released_tensors`; without copies on one CPU device."""
  return {name: layer.reshape(-1, *shape[1:])[:shape[0]]  # the rest is padding
          for (name, shape), layer in zip(named, np.asarray(stacked, np.float32), strict=True)}


def write_safetensors(file, entries, facts):
  """Write tensors one by one in the format of the `safetensors` library.

  The library requires all of them in memory at once, which is too much for a model on many devices.

  Args:
    file: binary file.
    entries: from `released_tensors`.
    facts: {str: str} for the header.
  """
  header, end = {'__metadata__': {'format': 'pt', **facts}}, 0
  for _, named in entries:
    for name, shape in named:
      start, end = end, end + 4 * int(np.prod(shape))
      header[name] = {'dtype': 'F32', 'shape': list(shape), 'data_offsets': [start, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  with bars.bar(total=end, unit='B', unit_scale=True, desc='export', leave=False) as bar:
    file.write(len(text).to_bytes(8, 'little') + text)
    for stacked, named in entries:
      for tensor in unstack_tensors(stacked, named).values():
        file.write(np.ascontiguousarray(tensor, '<f4').data)
        bar.update(tensor.nbytes)
