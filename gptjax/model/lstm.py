"""GPT-1's recurrent baseline (section 5): one LSTM layer in place of the Transformer, everything else equal.

The paper's is a single layer of 2,048 units. It does not say how states become logits: here by a projection
to the width of the embedding, which is tied. The cell is Flax's.

Letters: b batch, t time, d width of the embedding, u units.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.errors import InputError
from gptjax.model.gpt import GPT
from gptjax.model.layers import Projection, dropout, fold_in, lookup
from gptjax.model.parameters import embedding, gathered, inner_width
from gptjax.parallel import sharding


class LSTM(nnx.Module):
  """A language model with the interface of `gptjax.model.gpt.GPT`: `features`, `logits`, `unembedding`."""

  def __init__(self, key, config):
    c = config.model
    self.n_ctx, self.n_vocab, self.units = c.n_ctx, c.n_vocab, inner_width(c)
    self.soft_cap = c.logit_soft_cap
    self.dropout, self.dtype, self.embedding_dropout = c.dropout, c.compute_dtype, c.embedding_dropout
    key_wte, key_cell, key_proj = jax.random.split(key, 3)
    self.wte = embedding(key_wte, c)
    self.cell = nnx.OptimizedLSTMCell(c.n_embd, self.units, rngs=nnx.Rngs(key_cell))
    self.c_proj = Projection(key_proj, [(self.units, None)], [(c.n_embd, 'embed')], c.init_std)

  @property
  def unembedding(self):
    return self.wte

  def features(self, tokens, keys=None):
    """Features [b, t, d] from which the next token is predicted, for int32[b, t]; see `GPT.features`."""
    b, t = tokens.shape
    if t > self.n_ctx:
      raise InputError(f'a sequence of {t} tokens is longer than config.model.n_ctx = {self.n_ctx}')
    x = lookup(gathered(self.wte), tokens, ('batch', None))
    if self.embedding_dropout == 'activations':  # else the step has applied `compute.drop_embeddings`
      x = dropout(x, self.dropout, fold_in(keys, 0))
    cell = sharding.replicated(self.cell)
    zeros = jnp.zeros((b, self.units), x.dtype, out_sharding=sharding.compute_spec('batch', None))
    _, y = jax.lax.scan(cell, (zeros, zeros), jnp.swapaxes(x, 0, 1))
    y = dropout(jnp.swapaxes(y, 0, 1), self.dropout, fold_in(keys, 1))
    return self.c_proj(y)

  logits, __call__ = GPT.logits, GPT.__call__


def language_model(key, config):
  """Return a new model of `config.model.architecture`, its weights drawn from `key`."""
  return (GPT if config.model.architecture == 'transformer' else LSTM)(key, config)
