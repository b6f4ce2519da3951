"""Writes a folder that `transformers` can load: one of our architectures, safetensors, tokenizer."""

import json

import jax
from flax import nnx
from safetensors import SafetensorError, safe_open

from gptjax.data.tokenizers import hf_folder
from gptjax.errors import InputError
from gptjax.model import parameters
from gptjax.model.gpt import GPT, Block
from gptjax.model.lstm import LSTM
from gptjax.parallel import sharding
from gptjax.pretrained import hf_config, layout
from gptjax.pretrained.architectures import ARCHITECTURES
from gptjax.pretrained.hf_weights import released_tensors, write_safetensors
from gptjax.pretrained.huggingface import SINGLE
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
  """Return the facts in the header of the exported weights in a folder; {} without weights, or if damaged."""
  if isinstance(folder, Url):
    return _facts_in_bucket(folder / SINGLE) if access.is_file(folder / CONFIG) else {}
  if not access.is_file(folder / SINGLE):
    return {}
  try:
    with safe_open(folder / SINGLE, framework='np') as file:
      return file.metadata() or {}
  except SafetensorError:  # cut short, for instance: the next export replaces it
    return {}


def _facts_in_bucket(url):
  """Return the facts in the header of an object in the format of the `safetensors` library."""
  if buckets.entry(url) is None:
    return {}
  size = int.from_bytes(buckets.read_ranges(url, [(0, 8)])[0], 'little')
  if size > bounded.MAX_FILE_BYTES:
    return {}
  content = buckets.read_ranges(url, [(8, 8 + size)])[0]
  try:
    header = json_files.parse(content)
  except ValueError:
    return {}
  facts = header.get('__metadata__') if isinstance(header, dict) else None
  return facts if isinstance(facts, dict) else {}


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
  if tokenizer and tokenizer.n_vocab > model.n_vocab:
    raise InputError(f'the tokenizer has {tokenizer.n_vocab} entries, but the model only {model.n_vocab}')
  first, ends = (tokenizer.start_of_text, list(tokenizer.eos_ids)) if tokenizer else (None, [])
  fields = fields_of(model)
  config = hf_config.config_values(_architecture(fields), fields) | {
    'dtype': 'float32', 'bos_token_id': first,
    'eos_token_id': ends if len(ends) > 1 else ends[0] if ends else None}
  check_round_trip(config, model)
  return config


def fields_of(model):
  """Return {field of `config.model`: value} of a GPT, of all fields that are a property of it."""
  attn, mlp, norm = model.h.attn, model.h.mlp, model.h.ln_1
  names = {path[-1] for path, _ in layout.named_leaves(nnx.to_pure_dict(nnx.state(model.h)))}
  return dict(
    n_layer=model.n_layer, n_head=model.n_head, n_kv_head=model.n_kv_head, head_size=model.head_size,
    n_embd=model.n_embd, n_ctx=model.n_ctx, n_vocab=model.n_vocab, n_inner=mlp.c_fc.w.shape[-1],
    positions=model.positions, rotary_base=model.rotary_base, norm=model.norm,
    norm_type='layer' if norm.centered else 'rms', layer_norm_epsilon=norm.epsilon,
    qk_norm=hasattr(attn, 'q_norm'), bias='b' in names,
    mlp='gated' if hasattr(mlp, 'c_gate') else 'plain', activation_function=mlp.activation,
    scale_attn_weights=attn.scaled, scale_attn_by_inverse_layer_idx=attn.scaled_by_layer,
    sliding_window=model.window, logit_soft_cap=model.soft_cap, tie_word_embeddings=model.tied,
    dropout=model.dropout, embedding_dropout=model.embedding_dropout)


def _architecture(fields):
  """Return the Architecture that has a model of these fields; InputError says what the closest one lacks."""
  def distance(entry):
    architecture, different = entry
    return len(different), len(different.keys() & architecture.constants.keys())
  closest, different = min(((architecture, _differences(architecture, fields))
                            for architecture in ARCHITECTURES), key=distance)
  for name, only in different.items():
    raise InputError(f'{closest.title} in transformers does not support {name} = {fields[name]!r}{only}')
  return closest


def _differences(architecture, fields):
  """Return {field: which value is supported, as text} of the fields that no model of an architecture has."""
  free = architecture.sizes.keys() | architecture.options.keys()
  expected = layout.config_from_fields(
    {name: value for name, value in fields.items() if name in free} | architecture.constants).model
  expected.n_kv_head, expected.head_size = parameters.n_kv_head(expected), parameters.head_size(expected)
  different = {name: f', only {expected[name]!r}' for name, value in fields.items()
               if name not in (*free, 'activation_function', 'rotary_base') and value != expected[name]}
  unknown = fields['activation_function'] not in architecture.activations.values()
  return different | ({'activation_function': ''} if unknown else {})


def check_round_trip(config, model):
  """Raise InputError if a model differs from the one that config.json describes.

  Args:
    config: the content of config.json.
    model: a GPT.
  """
  fields = hf_config.model_fields('config.json', config)
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
    unused = name == 'rotary_base' and module.positions == 'learned'
    if name in COMPUTE_FIELDS or unused or name.startswith('_pytree__'):
      continue
    path = f'{prefix}/{name}'.lstrip('/')
    if isinstance(value, nnx.Module):
      entries |= _parts(value, n_vocab, path)
    else:
      entries[path] = value
      if isinstance(value, nnx.Variable):
        facts = parameters.declaration(value)
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
