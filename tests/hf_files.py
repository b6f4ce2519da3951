"""A small GPT-2 in a Hugging Face folder, with its tokenizer, written file by file; no PyTorch."""

import json

import numpy as np
from safetensors.numpy import save_file

from gptjax.data.tokenizers import byte_bpe

WIDTH, CONTEXT = 8, 16
CONFIG = {
  'model_type': 'gpt2', 'architectures': ['GPT2LMHeadModel'], 'n_layer': 1, 'n_head': 2, 'n_embd': WIDTH,
  'n_positions': CONTEXT, 'n_inner': None, 'activation_function': 'gelu_new', 'layer_norm_epsilon': 1e-5,
  'resid_pdrop': 0.1, 'embd_pdrop': 0.1, 'attn_pdrop': 0.1, 'tie_word_embeddings': True,
  'scale_attn_weights': True, 'scale_attn_by_inverse_layer_idx': False}


def tensors(n_vocab):
  """{name: array} of a model of CONFIG, the same every time."""
  random = np.random.default_rng(0)
  shapes = {'wte.weight': (n_vocab, WIDTH), 'wpe.weight': (CONTEXT, WIDTH), 'ln_f.weight': (WIDTH,),
            'ln_f.bias': (WIDTH,)}
  for norm in ('ln_1', 'ln_2'):
    shapes |= {f'h.0.{norm}.weight': (WIDTH,), f'h.0.{norm}.bias': (WIDTH,)}
  for name, (width, out) in {'attn.c_attn': (1, 3), 'attn.c_proj': (1, 1), 'mlp.c_fc': (1, 4),
                             'mlp.c_proj': (4, 1)}.items():
    shapes |= {f'h.0.{name}.weight': (width * WIDTH, out * WIDTH), f'h.0.{name}.bias': (out * WIDTH,)}
  return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_folder(folder, text='the blue stone never sings of rain', n_vocab=264, extra=(), **changes):
  """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

  Args:
    folder: path, made if need be.
    text: what its tokenizer is trained on.
    n_vocab: entries of that.
    extra: names of further tensors.
    changes: fields of config.json.

  Returns:
    The folder.
  """
  from gptjax.pretrained.tokenizer_files import transformers_files
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer = byte_bpe.train_bpe([text], n_vocab)
  config = {**CONFIG, 'vocab_size': n_vocab, 'eos_token_id': n_vocab - 1, **changes}
  (folder / 'config.json').write_text(json.dumps(config))
  save_file({**tensors(n_vocab), **dict.fromkeys(extra, np.zeros(1, np.float32))},
            folder / 'model.safetensors')
  for name, content in transformers_files(tokenizer, CONTEXT).items():
    (folder / name).write_bytes(content)
  return folder
