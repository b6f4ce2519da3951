"""Reads a Hugging Face folder, config.json and safetensors, of any of our architectures, without PyTorch."""

import functools
import re
from pathlib import Path

import numpy as np
from safetensors import safe_open

from gptjax.data.tokenizers import hf_tokenizer, native
from gptjax.errors import InputError
from gptjax.pretrained import hf_config, layout
from gptjax.storage.files import access, json_files, lfs
from gptjax.storage.files.json_files import shown

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
DTYPES = ('F32', 'F16', 'BF16')
# Masks, positions and frequencies that older versions of transformers saved with the weights.
BUFFERS = re.compile(r'(transformer\.|model\.)?(position_ids|h\.\d+\.attn\.(bias|masked_bias)|'
                     r'layers\.\d+\.self_attn\.rotary_emb\.inv_freq)')
HEAD = 'lm_head.weight'
# Tensors of the heads that transformers adds for classification, questions and multiple choice.
TASK_HEADS = re.compile(r'(score|classifier|qa_outputs|multiple_choice_head)\b.*')
# Prefixes that wrappers add to all names.
WRAPPERS = {'module.': ', as torch.nn.parallel names them', '_orig_mod.': ', as torch.compile names them'}


def open_folder(folder, entries=None):
  """Return the WeightSource of a Hugging Face folder.

  Args:
    folder: path.
    entries: number of rows of the embedding that are tokens, if the folder has no tokenizer.

  Raises:
    ValueError: invalid JSON, another architecture, an unsupported option that changes the model, a truncated
      file, or tensors that do not match.
  """
  path = folder / 'config.json'
  values = json_files.read(path)
  fields, prefix = hf_config.model_fields(path, values), hf_config.architecture_of(path, values).prefix
  tensors = read_tensors(files(folder, SINGLE, INDEX), _entries, prefix)
  tokenizer = hf_tokenizer.load_folder(folder, fields['n_vocab'])
  return make_source(folder, values, fields, tensors, tokenizer, entries)


def make_source(folder, values, fields, tensors, tokenizer, entries=None):
  """Return the WeightSource of tensors with the names of a Hugging Face folder.

  Args:
    folder, tokenizer, entries: as for `layout.make_source`.
    values: content of its config.json.
    fields: from `hf_config.model_fields`.
    tensors: from `read_tensors`.
  """
  architecture = hf_config.architecture_of(folder / 'config.json', values)
  embedding, = architecture.names('wte')
  _refuse_prefix(folder, tensors, architecture.prefix, embedding)
  _refuse_task_head(folder, tensors, values)
  if fields['tie_word_embeddings'] and HEAD in tensors:
    _drop_copied_head(folder, tensors, embedding)
  file_format = layout.FileFormat(architecture.names, architecture.transposed)
  return layout.make_source(folder, tensors, file_format, fields, tokenizer, entries)


def read_tensors(paths, entries, prefix):
  """Return {name without prefix: StoredTensor} of files, without masks.

  Args:
    paths: of the files.
    entries: function of a path that returns [(name, type, StoredTensor)], types as safetensors names them.
    prefix: of the names.
  """
  tensors, origin = {}, {}
  for path in paths:
    lfs.refuse_pointer(path)
    for full_name, dtype, tensor in entries(path):
      name = full_name.removeprefix(prefix)
      if BUFFERS.fullmatch(full_name):
        continue
      if dtype not in DTYPES:
        raise InputError(f'{path}: the tensor {full_name} is of type {dtype}, not one of {", ".join(DTYPES)}')
      if name in tensors:
        raise InputError(f'{path}: the tensor {full_name} is also in {origin[name]}')
      tensors[name] = tensor
      origin[name] = f'{path.name} as {full_name}'
  return tensors


def _entries(path):
  """Return [(name, type, StoredTensor)] of a safetensors file, in file order."""
  def read():
    with safe_open(path, framework='np') as file:
      slices = [(name, file.get_slice(name)) for name in file.offset_keys()]
      return [(name, entry.get_dtype(), layout.StoredTensor(
        tuple(entry.get_shape()), functools.partial(_block, path, name))) for name, entry in slices]
  return native.call(f'{path} is damaged or cut short', read)


def files(folder, single, index):
  """Return the files of the weights in a folder; all files in an index must exist.

  Args:
    folder: path.
    single, index: names of the only file, and of the index of the shards.
  """
  if access.is_file(folder / single):
    return [folder / single]
  index = folder / index
  placed = json_files.read(index).get('weight_map')
  if not isinstance(placed, dict) or not placed or not all(
      isinstance(name, str) and name == Path(name).name for name in placed.values()):
    raise InputError(f'{index} has no weight_map from tensors to files beside it')
  shards = [folder / name for name in sorted(set(placed.values()))]
  for shard in shards:
    if not access.is_file(shard):
      raise InputError(f'{shard} is missing, but {index.name} names it')
  return shards


def _block(path, name, index):
  # Open the file for each tensor: an open map would count all pages read so far as memory of this process.
  with safe_open(path, framework='np') as file:
    return file.get_slice(name)[index]


def _refuse_prefix(folder, tensors, prefix, embedding):
  """Raise InputError for names with the prefix of a wrapper, which transformers does not recognize."""
  if embedding in tensors:
    return
  for name, stem in ((name, stem) for name in tensors for stem in (embedding, HEAD)):
    before = name.removesuffix(stem)
    if before != name and before.endswith('.'):
      added = before.removesuffix(prefix)
      wrapper = WRAPPERS.get(added, '')
      raise InputError(f'{folder}: the tensors are named {name} and so on{wrapper}, but must be '
                       f'{prefix}{embedding} and so on: remove {added!r} from all names, '
                       f'{{name.removeprefix({added!r}): x for name, x in load_file(path).items()}}, and '
                       'save the file again')


def _refuse_task_head(folder, tensors, values):
  """Raise InputError for a model with the head of another task, such as GPT2ForSequenceClassification."""
  for name in filter(TASK_HEADS.fullmatch, tensors):
    kind = values.get('architectures')
    raise InputError(f'{folder}: the tensor {name} {list(tensors[name].shape)} is not part of the model: '
                     'only language models can be loaded, and architectures in config.json is '
                     f'{shown(kind)}. To take the layers without this head, save the folder again with '
                     'transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)')


def _drop_copied_head(folder, tensors, embedding):
  """Remove an output matrix that is a copy of the embedding; if the embedding is missing, use it as both."""
  head, wte = tensors.pop(HEAD), tensors.get(embedding)
  if wte is None:
    tensors[embedding] = head
  elif not is_copy(head, wte):
    raise InputError(f'{folder}: {HEAD} differs from {embedding}, but config.json ties them: set its '
                     'tie_word_embeddings to false')


def is_copy(tensor, other):
  """Return whether two StoredTensors have the same values; NaN equals NaN."""
  n, others = tensor.shape[0] if tensor.shape else 0, tensor.shape[1:]
  blocks = [(slice(start, min(start + 4096, n)), *map(slice, others)) for start in range(0, n, 4096)]
  return tensor.shape == other.shape and all(
    np.array_equal(tensor.read(block), other.read(block), equal_nan=True) for block in blocks)
