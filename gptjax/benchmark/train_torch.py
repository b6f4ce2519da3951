"""The contenders in PyTorch: GPT-2 as a plain module, from transformers and from a clone of nanoGPT."""

import contextlib
import hashlib
import importlib.util
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
  """A pre-norm Transformer block."""
  def __init__(self, d, n_head, dropout):
    super().__init__()
    self.n_head, self.dropout = n_head, dropout
    self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
    self.c_attn, self.attn_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
    self.c_fc, self.mlp_proj = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
    self.drop = nn.Dropout(dropout)

  def forward(self, x):
    b, t, d = x.shape
    qkv = self.c_attn(self.ln_1(x)).view(b, t, 3, self.n_head, d // self.n_head)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout)
    x = x + self.drop(self.attn_proj(y.transpose(1, 2).reshape(b, t, d)))
    return x + self.drop(self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate='tanh')))


class GPT2(nn.Module):
  """GPT-2 with tied embeddings; logits for int64[b, t]."""

  def __init__(self, c, n_vocab):
    super().__init__()
    self.wte, self.wpe = nn.Embedding(n_vocab, c.n_embd), nn.Embedding(c.n_ctx, c.n_embd)
    self.h = nn.ModuleList(Block(c.n_embd, c.n_head, c.dropout) for _ in range(c.n_layer))
    self.ln_f, self.drop = nn.LayerNorm(c.n_embd), nn.Dropout(c.dropout)
    for parameter in self.parameters():
      if parameter.ndim > 1:
        nn.init.normal_(parameter, std=c.init_std)

  def features(self, inputs):
    x = self.drop(self.wte(inputs) + self.wpe.weight[:inputs.shape[1]])
    for block in self.h:
      x = block(x)
    return x

  def logits(self, x):
    return self.ln_f(x) @ self.wte.weight.T

  def forward(self, inputs):
    return self.logits(self.features(inputs))


class Transformers(nn.Module):
  """GPT-2 of transformers, with PyTorch's fused attention."""

  def __init__(self, c, n_vocab):
    super().__init__()
    import transformers
    transformers.utils.logging.set_verbosity_error()
    rates = dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), c.dropout)
    self.model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
      n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd, n_positions=c.n_ctx, vocab_size=n_vocab,
      bos_token_id=None, eos_token_id=None, attn_implementation='sdpa', **rates))

  def forward(self, inputs):
    return self.model(inputs, use_cache=False).logits


class NanoGPT(nn.Module):
  """GPT of nanoGPT, whose GELU is the exact one: the loss for int64[b, t] inputs and targets.

  Args:
    folder: of a clone, whose model.py is executed.
  """

  def __init__(self, c, n_vocab, folder):
    super().__init__()
    path = Path(folder) / 'model.py'
    self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = importlib.util.spec_from_file_location('nanogpt_model', path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # its dataclass looks there
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(sys.stderr):  # it prints; stdout is for results
      self.model = module.GPT(module.GPTConfig(
        block_size=c.n_ctx, vocab_size=n_vocab, n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd,
        dropout=c.dropout))

  def forward(self, inputs, targets):
    return self.model(inputs, targets)[1]


def loss(logits, x, targets):
  """Mean next-token loss, float32[]; logits: function of x."""
  return F.cross_entropy(logits(x).flatten(0, 1).float(), targets.flatten())


def make_loss(model, contender):
  """The loss as a function of inputs and targets, compiled according to the contender's name."""
  if contender.endswith('-compile-blocks'):  # compiles once for all layers, in seconds
    for block in model.h:
      block.compile()
    head_loss = torch.compile(loss)
    return lambda inputs, targets: head_loss(model.logits, model.features(inputs), targets)
  compiled = torch.compile if contender.endswith('-compile') else lambda f: f
  if isinstance(model, NanoGPT):
    return compiled(model)
  model_loss = compiled(loss)
  return lambda inputs, targets: model_loss(model, inputs, targets)


def gpu_memory():
  """Bytes of memory of the GPU; 0 without a GPU."""
  return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0


def make_model(contender, c, n_vocab, nanogpt):
  """The module of a contender; see `torch_trainer`."""
  if contender.startswith('nanogpt'):
    return NanoGPT(c, n_vocab, nanogpt)
  return (Transformers if contender.startswith('transformers') else GPT2)(c, n_vocab)


def torch_trainer(config, batch, contender, share, nanogpt=''):
  """A function that trains n steps with AdamW and clipping, and facts; see `train.gptjax_trainer`.

  Args:
    config: of `sizes.make_config`; the vocabulary is padded as in gptjax, which is faster here too.
    batch: {'inputs', 'targets'}: int32[b, t].
    contender: torch, transformers or nanogpt, with -compile for torch.compile; torch-compile-blocks: layer by
      layer.
    share: of the GPU's memory, for this process.
    nanogpt: folder of a clone of nanoGPT.
  """
  gpu, c = torch.cuda.is_available(), config.model
  device = 'cuda' if gpu else 'cpu'
  if gpu:
    torch.cuda.set_per_process_memory_fraction(share)
    torch.set_float32_matmul_precision('high')
  torch.manual_seed(0)
  n_vocab = -(-c.n_vocab // c.pad_vocab_to) * c.pad_vocab_to
  with torch.device(device):
    model = make_model(contender, c, n_vocab, nanogpt)
  forward = make_loss(model, contender)
  optimizer = make_optimizer(model, config.optimizer, gpu)
  inputs, targets = (torch.tensor(batch[name]).long().to(device) for name in ('inputs', 'targets'))

  def step():
    with torch.autocast(device, torch.bfloat16, enabled=c.compute_dtype == 'bfloat16'):
      value = forward(inputs, targets)
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value.detach()

  def train(n):
    step().item()
    start = time.perf_counter()
    for _ in range(n):
      value = step()
    value = value.item()
    seconds = (time.perf_counter() - start) / n
    return {'seconds': seconds, 'loss': value, 'memory': torch.cuda.max_memory_allocated() if gpu else None}

  start = time.perf_counter()
  train(1)  # compiles, and fails if the memory does not suffice
  return train, {'device': torch.cuda.get_device_name() if gpu else 'cpu', 'torch': torch.__version__,
                 'compile_s': time.perf_counter() - start,
                 **({'nanogpt_sha256': model.digest} if isinstance(model, NanoGPT) else {})}


def make_optimizer(model, c, fused):
  matrices = [p for p in model.parameters() if p.ndim > 1]
  vectors = [p for p in model.parameters() if p.ndim == 1]
  return torch.optim.AdamW(
    [{'params': matrices, 'weight_decay': c.weight_decay}, {'params': vectors, 'weight_decay': 0.0}],
    lr=c.learning_rate, betas=(c.b1, c.b2), eps=c.epsilon, fused=fused)
