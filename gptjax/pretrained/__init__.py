"""Loads and saves weights: Hugging Face folders, OpenAI's files, and runs of gptjax.

    model, tokenizer = gptjax.load('gpt2-xl')               # a folder, or else the model on the Hub
    logits = model(tokens)                                  # int32[b, t] -> float32[b, t, n_vocab]
    gptjax.save_pretrained(model, tokenizer, 'folder')      # for transformers, vLLM, ...

Loading never unpickles or runs code, and does not need PyTorch.
"""

import re
import sys

if sys.argv[:1] == ['-m']:  # sys.argv while `python -m gptjax.pretrained` imports the package
  from gptjax.command import early, startup
  from gptjax.command.parsers import pretrained as parsers
  from gptjax.parallel import jax_settings
  _action = parsers.action(sys.argv[1:])
  startup.begin(_action, 'stopped')
  early.handle_help(lambda: parsers.parser(_action), _action, action=_action)
  jax_settings.begin(_action)

from flax import nnx

from gptjax.errors import InputError
from gptjax.parallel import sharding
from gptjax.pretrained import layout
from gptjax.pretrained.export import save_pretrained
from gptjax.storage.files import access, cache, hub_names, paths
from gptjax.train.step import graph

__all__ = ['load', 'open_source', 'save_pretrained']

CHECKPOINT = re.compile(r'checkpoint-\d{1,18}')
PICKLES = ('.bin', '.pt', '.pth', '.pkl', '.pickle')
OTHER_WEIGHTS = (*PICKLES, '.h5', '.msgpack', '.onnx', '.ot', '.gguf')  # not copied from a bucket


def load(path):
  """Load a model and the tokenizer in the same folder.

  The weights are float32, loaded tensor by tensor directly to their shards of the current mesh
  (`jax.set_mesh`). If no mesh is set, a mesh of one device is set for this thread, also after the call. The
  model computes in float32 on CPUs and in bfloat16 elsewhere, as with `config.model.compute_dtype` = auto.

  Args:
    path: a folder, here or in a bucket (`gs://BUCKET/FOLDER`, `s3://BUCKET/FOLDER`); or a model on the
      Hugging Face Hub (`gpt2`, `OWNER/NAME`, `OWNER/NAME@REVISION`, see `gptjax.storage.files.hub_names`).
      Their files are copied into `config.data.cache_dir`, and the cache of `huggingface_hub`. A folder of
      the name of a model takes precedence. The content of a folder determines its kind:
      `config.json` and `model.safetensors` (or its shards): Hugging Face: GPT-2, OpenAI-GPT, Llama or Qwen3;
      `hparams.json` and `model.ckpt.index`: OpenAI's GPT-2;
      `params_shapes.json` and `params_0.npy` ...: OpenAI's GPT-1;
      `checkpoints/` and `config.json`: a workdir: its newest valid checkpoint;
      `manifest.json` and `state/`: one checkpoint in a workdir.

  Returns:
    (model, tokenizer): a `gptjax.model.gpt.GPT`, `model(int32[b, t])` returns float32[b, t, n_vocab]; the
    tokenizer is None if the folder has none.

  Raises:
    ValueError: with a one-line message about the tensor with both shapes, the option of config.json, the
      file, or the size that the mesh does not divide.
  """
  return load_source(open_source(path))


def load_source(source):
  """Return (model, tokenizer) of a layout.WeightSource, see `load`."""
  mesh = sharding.ensure_mesh()
  config = layout.config_from_fields(source.fields)
  sharding.check_model(config.model, mesh)
  params = source.read(sharding.with_shardings(layout.weight_shapes(config), mesh))
  return nnx.merge(graph(config), params), source.tokenizer


def open_source(path, entries=None):
  """Return the layout.WeightSource at a path, after checking the names and shapes of its tensors.

  Args:
    path: as for `load`.
    entries: number of rows of the embedding of a Hugging Face folder without a tokenizer that are tokens; the
      others are padding. None: all.

  Raises:
    ValueError: as `load`.
  """
  if name := hub_names.parse(path):
    from gptjax.pretrained import hub
    return _open_folder(paths.location(hub.download(name)), f'{name}', entries)
  return _open_folder(paths.location(path), path, entries)


def _open_folder(folder, path, entries):
  """Return the WeightSource of a folder, a Path or a Url; `path` is its name in messages."""
  if folder.name.endswith(PICKLES) and access.is_file(folder):
    raise InputError(f'{path} is not read as it is, because such a file can run code: '
                     f'`python -m gptjax.pretrained import {path} FOLDER` converts it; give that folder')
  names = access.names(folder)
  if not names and not access.is_folder(folder):
    if folder.name in ('resume', 'scratch'):  # values of init_from in nanoGPT
      raise InputError(f'{path} is not a folder: leave init_from empty; a run starts from random weights, '
                       'and resumes with the same --workdir')
    raise InputError(f'{path} is not a folder: give the folder of the weights, or a name on the Hugging Face '
                     'Hub, OWNER/NAME')
  has = lambda *files: set(files) <= set(names)
  if has('manifest.json', 'state'):
    from gptjax.pretrained import workdir
    return workdir.open_checkpoint(folder)
  if has('config.json', 'checkpoints'):
    from gptjax.pretrained import workdir
    return workdir.open_workdir(folder)
  location = folder
  hugging_face = has('config.json') and (has('model.safetensors') or has('model.safetensors.index.json'))
  if hugging_face or has('hparams.json') or has('params_shapes.json'):
    folder = cache.folder(folder, lambda name, _: '/' not in name and not name.endswith(OTHER_WEIGHTS))
  if hugging_face:
    from gptjax.pretrained import huggingface
    return huggingface.open_folder(folder, entries)._replace(folder=location)
  if has('hparams.json'):
    from gptjax.pretrained import openai
    return openai.open_gpt2(folder)._replace(folder=location)
  if has('params_shapes.json'):
    from gptjax.pretrained import openai
    return openai.open_gpt1(folder)._replace(folder=location)
  _refuse_incomplete(path, names)
  raise InputError(f'{path} has no weights: looked for config.json with model.safetensors, hparams.json '
                   'with model.ckpt, params_shapes.json with params_0.npy, a workdir, a checkpoint')


def _refuse_incomplete(path, names):
  """Raise InputError if the names in a folder show that it is nearly one of transformers, and what to do."""
  if 'adapter_config.json' in names:
    raise InputError(f'{path} has an adapter of PEFT, not a model: merge it into its model, with '
                     'model.merge_and_unload().save_pretrained(FOLDER), and give that folder')
  weights = [name for name in names if name.endswith('.safetensors')]
  if weights and 'config.json' not in names:
    raise InputError(f'{path} has {weights[0]} but no config.json: add the one that transformers saved with '
                     'the weights, which has the sizes of the model')
  if weights:
    raise InputError(f'{path} has {weights[0]}, but neither model.safetensors nor '
                     'model.safetensors.index.json: rename a single file to model.safetensors, or add the '
                     'index of the shards')
  if checkpoints := [name for name in names if CHECKPOINT.fullmatch(name)]:  # the output_dir of a Trainer
    newest = max(checkpoints, key=lambda name: int(name.rpartition('-')[2]))
    raise InputError(f'{path} has no weights itself: give one of its checkpoints, like {path}/{newest}')
  if pickles := [name for name in names if name.endswith(PICKLES)]:
    raise InputError(f'{path} has no safetensors, only {pickles[0]}, which is not read as it is, because '
                     'such a file can run code: '
                     f'`python -m gptjax.pretrained import {path} FOLDER` converts it; give that folder')
