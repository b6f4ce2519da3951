"""Weights as other programs write them: nanoGPT's model and checkpoint, and llm.c's file. Needs PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

SIZES = dict(n_layer=2, n_head=3, n_embd=36, block_size=24, bias=True, vocab_size=61, dropout=0.1)


class Block(torch.nn.Module):
  """A block in nanoGPT's names; `gelu` is 'none' (exact) or 'tanh'."""

  def __init__(self, args, gelu):
    super().__init__()
    width, bias = args['n_embd'], args['bias']
    self.heads, self.gelu = args['n_head'], gelu
    self.ln_1, self.ln_2 = (torch.nn.LayerNorm(width, bias=bias) for _ in range(2))
    self.attn = torch.nn.ModuleDict({'c_attn': torch.nn.Linear(width, 3 * width, bias),
                                     'c_proj': torch.nn.Linear(width, width, bias)})
    self.mlp = torch.nn.ModuleDict({'c_fc': torch.nn.Linear(width, 4 * width, bias),
                                    'c_proj': torch.nn.Linear(4 * width, width, bias)})

  def forward(self, x):
    b, t, d = x.shape
    q, k, v = self.attn['c_attn'](self.ln_1(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / (d // self.heads) ** 0.5
    scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -torch.inf)
    x = x + self.attn['c_proj']((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))
    hidden = torch.nn.functional.gelu(self.mlp['c_fc'](self.ln_2(x)), approximate=self.gelu)
    return x + self.mlp['c_proj'](hidden)


class NanoGPT(torch.nn.Module):
  """A model in nanoGPT's names, int64[b, t] -> float32[b, t, vocab], whose every weight matters."""

  def __init__(self, args, gelu='none'):
    super().__init__()
    self.args, width = args, args['n_embd']
    torch.manual_seed(0)
    self.transformer = torch.nn.ModuleDict({
      'wte': torch.nn.Embedding(args['vocab_size'], width),
      'wpe': torch.nn.Embedding(args['block_size'], width),
      'h': torch.nn.ModuleList(Block(args, gelu) for _ in range(args['n_layer'])),
      'ln_f': torch.nn.LayerNorm(width, bias=args['bias'])})
    self.lm_head = torch.nn.Linear(width, args['vocab_size'], bias=False)
    self.transformer['wte'].weight = self.lm_head.weight
    with torch.no_grad():
      for weight in self.parameters():
        weight.add_(0.1 * torch.randn_like(weight))

  def forward(self, tokens):
    x = self.transformer['wte'](tokens) + self.transformer['wpe'].weight[:tokens.shape[1]]
    for block in self.transformer['h']:
      x = block(x)
    return self.lm_head(self.transformer['ln_f'](x))


def nanogpt(gelu='none', **changes):
  """A NanoGPT of SIZES with other sizes or options."""
  return NanoGPT({**SIZES, **changes}, gelu).eval()


def checkpoint(judge, /, **changes):
  """The content of nanoGPT's ckpt.pt; `changes` of its entries."""
  optimizer = torch.optim.AdamW(judge.parameters())
  return {'model': judge.state_dict(), 'optimizer': optimizer.state_dict(), 'model_args': judge.args,
          'iter_num': 7, 'best_val_loss': torch.tensor(1.5), 'config': {'dataset': 'openwebtext'}, **changes}


def nanogpt_logits(model, tokens):
  with torch.no_grad():
    return model(torch.tensor(tokens).long()).numpy()


LLMC_ORDER = ('ln_1.weight', 'ln_1.bias', 'attn.c_attn.weight', 'attn.c_attn.bias', 'attn.c_proj.weight',
              'attn.c_proj.bias', 'ln_2.weight', 'ln_2.bias', 'mlp.c_fc.weight', 'mlp.c_fc.bias',
              'mlp.c_proj.weight', 'mlp.c_proj.bias')


def llmc_file(model, multiple=128, dtype='float32', **header):
  """The bytes of llm.c's file of a GPT2LMHeadModel: `write_model` of its train_gpt2.py.

  Args:
    model: of transformers, whose matrices are [in, out]; those of llm.c are [out, in].
    multiple: to which the rows of the embedding are padded, with ones, which no logit may show.
    dtype: 'float32' or 'bfloat16', to which the weights are rounded.
    header: positions in the header with other values, like _1=9.
  """
  config, state = model.config, model.transformer.state_dict()
  padded = -(-config.vocab_size // multiple) * multiple
  words = np.zeros(256, '<i4')
  words[:8] = (20240326, {'float32': 3, 'bfloat16': 5}[dtype], config.n_positions, config.vocab_size,
               config.n_layer, config.n_head, config.n_embd, padded)
  for position, value in header.items():
    words[int(position[1:])] = value
  parts = [torch.nn.functional.pad(state['wte.weight'], (0, 0, 0, padded - config.vocab_size), value=1.0),
           state['wpe.weight']]
  for name in LLMC_ORDER:
    layers = [state[f'h.{layer}.{name}'] for layer in range(config.n_layer)]
    parts += [layer.T if layer.ndim == 2 else layer for layer in layers]
  parts += [state['ln_f.weight'], state['ln_f.bias']]
  if dtype == 'bfloat16':
    contents = [part.bfloat16().contiguous().view(torch.int16).numpy() for part in parts]
  else:
    contents = [part.contiguous().numpy() for part in parts]
  return b''.join([words.tobytes(), *(content.tobytes() for content in contents)])
