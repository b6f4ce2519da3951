"""Writes weights as the safetensors of a Hugging Face folder, tensor by tensor."""

import json
from typing import Any, NamedTuple

import numpy as np

from gptjax.command import bars
from gptjax.pretrained import hf_config, layout


class Entry(NamedTuple):
  """A weight, and the tensors of a Hugging Face file that it is.

  stacked: array of all layers; [1, ...] if it is not in a layer.
  layers: [[(name, shape in the file) of each tensor] of each layer], as from `layout.FileFormat.tensors`.
  transposed: whether the tensors are transposed.
  """
  stacked: Any
  layers: list
  transposed: bool


def released_tensors(params, values):
  """Return [Entry] of all weights.

  Args:
    params: nested dict of weights, or of their gradients.
    values: the content of config.json.
  """
  architecture, entries = hf_config.architecture_of('config.json', values), []
  file_format = layout.FileFormat(architecture.full_names, architecture.transposed)
  config = layout.config_from_fields(hf_config.model_fields('config.json', values))
  declared = dict(layout.named_leaves(layout.weight_declarations(config)))
  for path, leaf in layout.named_leaves(params):
    facts = declared[path]
    layers = file_format.tensors(path, leaf.shape, facts, values['vocab_size'])
    stacked = leaf if leaf.ndim > len(facts.axes) else leaf[None]
    entries.append(Entry(stacked, layers, file_format.turns(facts)))
  return entries


def unstack_tensors(entry):
  """Return {name: float32 array} of an Entry, as in the file; without copies on one CPU device."""
  tensors = {}
  for layer, named in zip(np.asarray(entry.stacked, np.float32), entry.layers, strict=True):
    *rows, outputs = named[0][1][::-1] if entry.transposed else named[0][1]  # of each tensor
    whole = layer.reshape(*[-1 for _ in rows], outputs * len(named))
    whole = whole[:rows[0]] if rows else whole  # the other rows are padding
    for (name, _), tensor in zip(named, np.split(whole, len(named), axis=-1), strict=True):
      tensors[name] = tensor.T if entry.transposed else tensor
  return tensors


def write_safetensors(file, entries, facts):
  """Write tensors one by one in the format of the `safetensors` library.

  The library requires all of them in memory at once, which is too much for a model on many devices.

  Args:
    file: binary file.
    entries: from `released_tensors`.
    facts: {str: str} for the header.
  """
  header, end = {'__metadata__': {'format': 'pt', **facts}}, 0
  for name, shape in (tensor for entry in entries for layer in entry.layers for tensor in layer):
    start, end = end, end + 4 * int(np.prod(shape))
    header[name] = {'dtype': 'F32', 'shape': list(shape), 'data_offsets': [start, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  with bars.bar(total=end, unit='B', unit_scale=True, desc='export', leave=False) as bar:
    file.write(len(text).to_bytes(8, 'little') + text)
    for entry in entries:
      for tensor in unstack_tensors(entry).values():
        file.write(np.ascontiguousarray(tensor, '<f4').data)
        bar.update(tensor.nbytes)
