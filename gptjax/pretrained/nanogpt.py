"""Reads a checkpoint of nanoGPT: `ckpt.pt`, a file of PyTorch.

https://github.com/karpathy/nanoGPT, train.py and model.py. The file has {'model': {name: tensor},
'model_args': sizes, ...}. The names are those of GPT-2 in transformers; a matrix of a linear layer is
[out, in]. With `bias=False` neither linear layers nor norms have a bias, which is the same function as biases
of zero.
"""

import re

import numpy as np

from gptjax.errors import InputError
from gptjax.pretrained import huggingface, layout, torch_files
from gptjax.pretrained.architectures import GPT2
from gptjax.pretrained.checked_fields import check_fields, check_heads, read_sizes
from gptjax.pretrained.huggingface import HEAD
from gptjax.pretrained.openai import RELEASED
from gptjax.storage.files.json_files import shown

SIZES = dict(n_layer='n_layer', n_head='n_head', n_embd='n_embd', n_ctx='block_size', n_vocab='vocab_size')
OPTIONS = {'bias', 'dropout'}  # versions before 2023-01-27 have no `bias`
WITH_BIAS = re.compile(r'(h\.\d+\.(ln_\d|(attn|mlp)\.c_(attn|fc|proj))|ln_f)\.weight')
EXACT, TANH = 'gelu', 'gelu_new'  # the activation since 2023-05-17, and before


def open_checkpoint(path, tokenizer_for, activation=''):
  """Return the WeightSource of a checkpoint.

  Args:
    path: Path of the file.
    tokenizer_for: function of the number of rows of the embedding that returns the tokenizer, or None.
    activation: EXACT or TANH; '': TANH if the file is from before 2023-01-27, else EXACT.

  Raises:
    InputError: as `torch_files.read`; it is not of nanoGPT, has an unknown option, or the tensors do not
      match.
  """
  content = torch_files.read(path)
  state, args = _parts(path, content)
  where = f'{path}: model_args'
  fields = read_sizes(where, args, SIZES)
  fields |= RELEASED | {
    'norm': 'before', 'n_inner': 4 * fields['n_embd'], 'dropout': args.get('dropout', 0.0),
    'activation_function': activation or (EXACT if 'bias' in args else TANH)}
  check_fields(where, fields, SIZES)
  check_heads(where, fields, SIZES)
  tensors = huggingface.read_tensors([path], lambda _: torch_files.entries(path, state), GPT2.prefix)
  for name, tensor in list(tensors.items()):
    if WITH_BIAS.fullmatch(name) and args.get('bias') is False:
      tensors.setdefault(f'{name.removesuffix("weight")}bias', _zeros(tensor.shape[:1]))
  if HEAD in tensors and 'wte.weight' in tensors:  # nanoGPT ties them; some who changed it do not
    tied = huggingface.is_copy(tensors[HEAD], tensors['wte.weight'])
    fields['tie_word_embeddings'] = tied
    if tied:
      del tensors[HEAD]
  file_format = layout.FileFormat(GPT2.names, transposed=True)
  return layout.make_source(path, tensors, file_format, fields, tokenizer_for(fields['n_vocab']))


def _parts(path, content):
  """Return (tensors by name, model_args) of the content of a file; InputError if it has other parts."""
  if not isinstance(content, dict) or not isinstance(content.get('model'), dict):
    raise InputError(f'{path} is not a checkpoint of nanoGPT, which is a dict with model and model_args; for '
                     'weights of transformers, give their folder, which has config.json')
  args = content.get('model_args')
  if not isinstance(args, dict):
    raise InputError(f'{path} has no model_args, which have the sizes of the model: save them with it, as '
                     'train.py of nanoGPT does')
  if unknown := [name for name in args if name not in {*SIZES.values(), *OPTIONS}]:
    names = ', '.join(shown(name) for name in unknown[:4])
    raise InputError(f'{path}: model_args has {names}, which nanoGPT does not: it is of another model, which '
                     'cannot be imported')
  if not isinstance(args.get('bias', True), bool):
    raise InputError(f'{path}: model_args has bias = {shown(args["bias"])}: it must be True or False')
  return content['model'], args


def _zeros(shape):
  return layout.StoredTensor(shape, lambda index: np.zeros(shape, np.float32)[index])
