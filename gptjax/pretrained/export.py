"""Writes a folder that `transformers` opens: GPT-2 or OpenAI-GPT, safetensors, tokenizer."""

import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from safetensors import safe_open

from gptjax.command import bars
from gptjax.errors import InputError
from gptjax.files import atomic, paths
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
from gptjax.train.step import graph

# What a module keeps beside the model's shape: how it is computed, not what.
COMPUTE_FIELDS = ('dtype', 'kernel', 'remat', 'scanned')


def save_pretrained(model, tokenizer, folder):
  """Writes a model and its tokenizer so that `transformers` opens them with no flag.

  `AutoModelForCausalLM.from_pretrained(folder)` gives the same logits and `AutoTokenizer.from_pretrained`
  the same ids (see `tokenizer_files` for what GPT-1's cannot be). Weights are float32, padding is cut off.
  A folder that is new appears whole or not at all. In one that exists the weights are replaced whole; it
  must have held the same model at another step, or nothing of this kind.

  Args:
    model: a `gptjax.model.gpt.GPT` on devices of this process; of weights in shards, one at a
      time is gathered.
    tokenizer: one of gptjax's, or None.
    folder: path.

  Raises:
    ValueError: `transformers` cannot have such a model or tokenizer, or the folder holds another one, or
      it cannot be written.
  """
  params = nnx.to_pure_dict(nnx.state(model))
  if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
    raise InputError('the model lies on devices of several hosts: export its checkpoint with one process, '
                     'python -m gptjax.pretrained export')
  write_folder(folder_files(model, tokenizer), params, folder, {})


def checkpoint_exporter(model, tokenizer, folder):
  """A function that exports a good checkpoint, given its folder; it needs no device.

  Args:
    model: a GPT whose weights may be jax.ShapeDtypeStruct.
    tokenizer: one of gptjax's.
    folder: where to; its weights' header says the step.

  Raises:
    ValueError: as `save_pretrained`, now and not at the first checkpoint.
  """
  folder = Path(folder)
  files = folder_files(model, tokenizer)
  check_folder(folder, files)
  abstract = nnx.to_pure_dict(nnx.state(model))

  def export(path):
    facts = {'step': path.name, 'arrays': digests.arrays_digest(checkpoint.read_manifest(path))}
    if not facts.items() <= exported_facts(folder).items():
      write_folder(files, checkpoint.read_weights(path, abstract), folder, facts)
  return export


def export_obstacle(config):
  """Why `transformers` cannot have the model of a resolved config, in words; None: it can."""
  try:
    with jax.set_mesh(sharding.single_mesh()):  # no size depends on the mesh
      config_json(nnx.merge(graph(config), layout.weight_shapes(config)), None)
  except InputError as error:
    return str(error)
  return None


def exported_facts(folder):
  """The facts in the header of the weights that a folder of `checkpoint_exporter` holds; {}: none."""
  if not (folder / SINGLE).exists():
    return {}
  with safe_open(folder / SINGLE, framework='np') as file:
    return file.metadata() or {}


def folder_files(model, tokenizer):
  """{name: bytes} of all files but the weights."""
  config = json.dumps(config_json(model, tokenizer), indent=2, sort_keys=True)
  files = {'config.json': f'{config}\n'.encode()}
  return files | (transformers_files(tokenizer, model.n_ctx) if tokenizer else {})


def config_json(model, tokenizer):
  """What config.json says, a dict (ValueError for what the architecture in `transformers` has not got)."""
  if isinstance(model, LSTM):
    raise InputError('transformers has no such LSTM: only a Transformer can be exported')
  if type(model) is not GPT or not isinstance(model.h, Block):
    raise InputError(f'only a gptjax.model.gpt.GPT as `gptjax.load` gives it can be exported, not '
                     f'{type(model).__name__}{" with its layers apart" * (type(model) is GPT)}')
  block, end = model.h, tokenizer.end_of_text if tokenizer else None
  ends = list(tokenizer.eos_ids) if tokenizer else []
  if tokenizer and tokenizer.n_vocab > model.n_vocab:
    raise InputError(f'the tokenizer has {tokenizer.n_vocab} entries, but the model only {model.n_vocab}')
  kind = GPT2 if model.norm == 'before' else GPT1
  names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS[kind].items())}
  n_embd, n_inner = model.n_embd, block.mlp.c_fc.b.shape[1]
  if block.mlp.activation not in names:
    raise InputError(f'OpenAI-GPT in transformers cannot have activation_function = {block.mlp.activation!r}')
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
  for name, value, only in (
      ('n_inner', n_inner, 4 * n_embd), ('scale_attn_weights', block.attn.scaled, True),
      ('scale_attn_by_inverse_layer_idx', block.attn.scaled_by_layer, False)):
    if value != only:
      raise InputError(f'OpenAI-GPT in transformers cannot have {name} = {value}, only {only}')
  config['architectures'] = ['OpenAIGPTLMHeadModel']
  check_round_trip(config, model)
  return config


def check_round_trip(config, model):
  """Refuses a model that is not exactly the one of which a config.json speaks (InputError).

  Args:
    config: the content of config.json.
    model: a GPT.
  """
  fields = model_fields('config.json', config)
  with jax.set_mesh(sharding.single_mesh()):
    read = layout.config_from_fields(fields)
    twin = nnx.merge(graph(read), layout.weight_shapes(read))
  # The rows that pad a vocabulary are not written.
  theirs, ours = (_parts(one, model.n_vocab) for one in (twin, model))
  for name in sorted(ours.keys() | theirs.keys()):
    if ours.get(name) != theirs.get(name):
      raise InputError(f'transformers has no such model: {name} is {ours.get(name, "absent")}, but in its '
                       f'{config["model_type"]} {theirs.get(name, "absent")}')


def _parts(module, n_vocab, prefix=''):
  """{name: type, value, or declaration and shape in a file} of all that a module consists of."""
  found = {prefix or 'model': type(module).__name__}
  for name, value in vars(module).items():
    if name in COMPUTE_FIELDS or name.startswith('_pytree__'):
      continue
    path = f'{prefix}/{name}'.lstrip('/')
    if isinstance(value, nnx.Module):
      found |= _parts(value, n_vocab, path)
    else:
      found[path] = value
      if isinstance(value, nnx.Variable):
        facts = declaration(value)
        found[path] = facts, facts.real_shape(value.shape, n_vocab)
  return found


def check_folder(folder, files):
  """Refuses a folder in which one of these files is another one's (ValueError)."""
  for name, content in files.items():
    if (folder / name).exists() and (folder / name).read_bytes() != content:
      raise InputError(f'{folder} holds another model or tokenizer ({name} differs): export into another '
                       'folder')


def write_folder(files, params, folder, facts):
  """Writes or renews a folder, so that it is whole at every moment.

  Args:
    files: of `folder_files`.
    params: nested dict of weights, NumPy or JAX arrays.
    folder: path.
    facts: {str: str} for the header of the weights.
  """
  folder = Path(paths.local(folder))
  check_folder(folder, files)
  made = folder if folder.exists() else atomic.new_name(folder)
  try:
    atomic.make_folders(folder.parent)
    atomic.remove_leftovers(folder.parent, folder.name)
    if made == folder:
      atomic.remove_leftovers(folder, SINGLE)
    else:
      made.mkdir()
    for name, content in files.items():
      if not (made / name).exists():
        atomic.write(made / name, content)
    values = json.loads(files['config.json'])
    with atomic.replacing(made / SINGLE) as file:
      write_safetensors(file, released_tensors(params, values), facts)
    if made != folder:
      atomic.rename(made, folder)
  except OSError as error:
    if made != folder:
      atomic.remove(made)
    raise InputError(f'{folder} cannot be written: {error.strerror or error}') from None


def released_tensors(params, values):
  """[(stacked weight, [(name in a Hugging Face file, its shape there)])], an entry of the list a layer.

  Args:
    params: nested dict of weights, or of their gradients.
    values: what config.json says of the model.
  """
  def full(name):
    name = hf_name(name, values['model_type'])
    return name if name.startswith('lm_head') else PREFIX + name
  config, found = layout.config_from_fields(model_fields('config.json', values)), []
  declared = dict(layout.named_leaves(layout.weight_declarations(config)))
  for path, leaf in layout.named_leaves(params):
    facts = declared[path]
    tensors = layout.released_shapes(path, leaf.shape, facts, values['vocab_size'])
    named = [(full(name), shape) for name, shape in tensors]
    found.append((leaf if leaf.ndim > len(facts.axes) else leaf[None], named))
  return found


def unstack_tensors(stacked, named):
  """{name: float32 array} of one entry of `released_tensors`; on one CPU device these are no copies."""
  return {name: layer.reshape(-1, *shape[1:])[:shape[0]]  # what comes after is padding
          for (name, shape), layer in zip(named, np.asarray(stacked, np.float32), strict=True)}


def write_safetensors(file, entries, facts):
  """Writes tensors one by one, in the layout of the `safetensors` library.

  That library wants all of them in memory at once, where a model on many devices is not.

  Args:
    file: binary file.
    entries: of `released_tensors`.
    facts: {str: str} for its header.
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
