"""Converts weights of another program to a folder that gptjax and transformers load.

    python -m gptjax.pretrained import ckpt.pt imported --tokenizer=gpt2

SOURCE is one of
    nanoGPT       ckpt.pt, or the folder that has it
    transformers  a folder with config.json and pytorch_model.bin, or its shards
    llm.c         gpt2_124M.bin, gpt2_124M_bf16.bin, model_STEP.bin

The first two are files of PyTorch, pip install 'gptjax[import]'. Nothing in them is run: they are read as
tensors and plain values, and refused if they have anything else.
"""

import fnmatch
import functools
import sys

import jax.numpy as jnp
from flax import nnx

from gptjax.data.tokenizers import characters, hf_tokenizer, loading
from gptjax.errors import InputError
from gptjax.pretrained import (
  export,
  hf_config,
  huggingface,
  layout,
  llmc,
  load_source,
  nanogpt,
  torch_files,
)
from gptjax.storage.files import access, cache, json_files, paths
from gptjax.text.words import plural

SINGLE, INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'
SHARD = 'pytorch_model-*.bin'
CHECKPOINT = 'ckpt.pt'
WEIGHTS = '*.bin', '*.pt', '*.pth'
NOT_COPIED = ('.safetensors', '.h5', '.msgpack', '.onnx', '.ot', '.gguf')  # from a bucket


def import_weights(source, out, tokenizer='', activation=''):
  """Write a folder of config.json, model.safetensors and a tokenizer.

  Weights keep their bits in float32; those in bfloat16 and float16 become the same numbers in float32.

  Args:
    source: a file or a folder, here or in a bucket, as above.
    out: folder to write, here or in a bucket, which does not exist yet.
    tokenizer: as for `loading.load`; '': that of the folder, or none. Rows of the embedding beyond its
      entries are padding, which is left out. Of a character-level one, the end-of-text entry is left out
      where the model has no row for it.
    activation: of a checkpoint of nanoGPT, see `nanogpt.open_checkpoint`.

  Returns:
    (model, tokenizer) as `gptjax.load`.

  Raises:
    InputError: the weights cannot be read, do not match their sizes, or are of another architecture; `out`
      exists, or cannot be written.
  """
  target = paths.location(out)
  if access.is_folder(target) or access.is_file(target):
    raise InputError(f'{out} exists: give the name of a new folder')
  given = loading.load(tokenizer) if tokenizer else None
  model, found = load_source(_open(source, given, activation))
  _report_not_finite(source, model)
  export.save_pretrained(model, found, out)
  return model, found


def _open(source, given, activation):
  """Return the layout.WeightSource of the weights at a path; `given`: a tokenizer, or None."""
  location = paths.location(source)
  if access.is_file(location):
    if location.name in (SINGLE, INDEX) or fnmatch.fnmatchcase(location.name, SHARD):
      return _open_folder(location.parent, given, activation)
    return _open_file(cache.local_file(location), given, activation)._replace(folder=location)
  names = access.names(location)
  if any(name.endswith('.safetensors') for name in names):
    raise InputError(f'{source} has safetensors, which need no import: give the folder to --from or '
                     '--config.init_from, or import one of its other files')
  if not names:
    raise InputError(f'{source} is not a file or a folder with files: give {CHECKPOINT} of nanoGPT, a folder '
                     f'with {SINGLE}, or a model of llm.c')
  return _open_folder(location, given, activation)


def _open_folder(location, given, activation):
  names = access.names(location)
  if SINGLE in names or INDEX in names:
    if activation:
      raise InputError(f'--activation_function is for checkpoints of nanoGPT, and {location} has the '
                       'activation in config.json: remove the flag')
    if 'config.json' not in names:
      raise InputError(f'{location} has weights but no config.json: add the one that transformers saved with '
                       'them, which has the sizes of the model')
    folder = cache.folder(location, lambda name, _: '/' not in name and not name.endswith(NOT_COPIED))
    return _open_hugging_face(folder, given)._replace(folder=location)
  if CHECKPOINT in names:
    file = cache.local_file(location / CHECKPOINT)
    return _open_file(file, given, activation)._replace(folder=location)
  found = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in WEIGHTS)]
  what = f'give one of its files, like {location}/{found[-1]}' if found else 'give a file'
  raise InputError(f'{location} has neither {CHECKPOINT} nor {SINGLE}: {what}')


def _open_file(path, given, activation):
  """Return the WeightSource of a file, whose first bytes say what it is."""
  if path.name.endswith('.safetensors'):
    raise InputError(f'{path} is in safetensors, which needs no import: give its folder, with config.json, '
                     'to --from or --config.init_from')
  tokenizer_for = functools.partial(_fitting, given)
  if llmc.kind(path):
    if activation:
      raise InputError(f'--activation_function is for checkpoints of nanoGPT, and {path} is of llm.c: remove '
                       'the flag')
    return llmc.open_model(path, tokenizer_for)
  return nanogpt.open_checkpoint(path, tokenizer_for, activation)


def _open_hugging_face(folder, given):
  """Return the WeightSource of a folder with config.json and files of PyTorch."""
  values = json_files.read(folder / 'config.json')
  fields = hf_config.model_fields(folder / 'config.json', values)
  prefix = hf_config.architecture_of(folder / 'config.json', values).prefix
  files = huggingface.files(folder, SINGLE, INDEX)
  entries = lambda path: torch_files.entries(path, torch_files.read(path))
  tensors = huggingface.read_tensors(files, entries, prefix)
  tokenizer = given and _fitting(given, fields['n_vocab'])
  tokenizer = tokenizer or hf_tokenizer.load_folder(folder, fields['n_vocab'])
  return huggingface.make_source(folder, values, fields, tensors, tokenizer)


def _fitting(tokenizer, n_rows):
  """Return the tokenizer for an embedding of `n_rows`: nanoGPT's characters have no end-of-text entry.

  Raises:
    InputError: the tokenizer has other characters than the model, whose embedding is never padded.
  """
  if not isinstance(tokenizer, characters.Characters):
    return tokenizer
  if tokenizer.n_characters == n_rows:
    return characters.without_end(tokenizer)
  if tokenizer.n_vocab != n_rows:
    raise InputError(f'--tokenizer has {plural(tokenizer.n_characters, "character")}, and the model '
                     f'{n_rows:,} entries: train it on the text that the model was trained on')
  return tokenizer


def _report_not_finite(source, model):
  """Print the names of weights with NaN or infinite values, which are imported as they are."""
  weights = layout.named_leaves(nnx.to_pure_dict(nnx.state(model)))
  if names := ['/'.join(path) for path, weight in weights if not jnp.isfinite(weight).all()]:
    print(f'{source} has NaN or infinite values, in {", ".join(names)}: imported as they are',
          file=sys.stderr)
