"""What the benchmark compares with: the same GPT-2 as a plain PyTorch module."""

import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
  def __init__(self, d, n_head):
    super().__init__()
    self.n_head = n_head
    self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
    self.c_attn, self.attn_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
    self.c_fc, self.mlp_proj = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

  def forward(self, x):
    b, t, d = x.shape
    qkv = self.c_attn(self.ln_1(x)).view(b, t, 3, self.n_head, d // self.n_head)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + self.attn_proj(y.transpose(1, 2).reshape(b, t, d))
    return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate='tanh'))


class GPT2(nn.Module):
  """Tied embedding, norm before each sub-layer; mean next-token loss."""

  def __init__(self, c):
    super().__init__()
    self.wte, self.wpe = nn.Embedding(c.n_vocab, c.n_embd), nn.Embedding(c.n_ctx, c.n_embd)
    self.h = nn.ModuleList(Block(c.n_embd, c.n_head) for _ in range(c.n_layer))
    self.ln_f = nn.LayerNorm(c.n_embd)
    for parameter in self.parameters():
      if parameter.ndim > 1:
        nn.init.normal_(parameter, std=c.init_std)

  def forward(self, inputs, targets):
    x = self.wte(inputs) + self.wpe.weight[:inputs.shape[1]]
    for block in self.h:
      x = block(x)
    logits = self.ln_f(x) @ self.wte.weight.T
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def torch_steps(config, batch, compiled):
  """A function that trains n steps with AdamW and clipping and gives the seconds of each; and facts."""
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  low = config.model.compute_dtype == 'bfloat16'
  model = GPT2(config.model).to(device)
  forward = torch.compile(model) if compiled else model
  c = config.optimizer
  matrices = [p for p in model.parameters() if p.ndim > 1]
  vectors = [p for p in model.parameters() if p.ndim == 1]
  optimizer = torch.optim.AdamW(
    [{'params': matrices, 'weight_decay': c.weight_decay}, {'params': vectors, 'weight_decay': 0.0}],
    lr=c.learning_rate, betas=(c.b1, c.b2), eps=c.epsilon, fused=device == 'cuda')
  inputs, targets = (torch.tensor(batch[name]).long().to(device) for name in ('inputs', 'targets'))

  def train(n):
    seconds = []
    for _ in range(n):
      start = time.perf_counter()
      with torch.autocast(device, torch.bfloat16, enabled=low):
        loss = forward(inputs, targets)
      loss.backward()
      nn.utils.clip_grad_norm_(model.parameters(), c.clip_norm)
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
      loss.item()
      seconds.append(time.perf_counter() - start)
    return seconds

  return train, {'device': torch.cuda.get_device_name() if device == 'cuda' else 'cpu',
                 'torch': torch.__version__}
