"""The matmuls of a training step, of a batch or of a token, from the config; without recomputed ones.

Letters: a matmul multiplies b pairs of matrices [m, k] and [k, n]; either may be stored transposed.
"""

import functools
from collections import Counter
from typing import NamedTuple


class Matmul(NamedTuple):
  """A matmul and how often it is computed.

  layout: dimensions of the operands in memory, 'mk,kn', 'mk,nk' or 'km,kn'.
  dtype, result: names of the dtypes of the operands and of the result.
  """
  count: int
  layout: str
  b: int
  m: int
  k: int
  n: int
  dtype: str
  result: str

  def __str__(self):
    sizes = f'b={self.b}, m={self.m}, k={self.k}, n={self.n}'
    return f'{self.count} x {self.layout}, {sizes}, {self.dtype} to {self.result}'

  @property
  def flops(self):
    return 2 * self.count * self.b * self.m * self.k * self.n

  @property
  def shapes(self):
    """The shapes of both operands in memory."""
    sizes = {'m': self.m, 'k': self.k, 'n': self.n}
    return [((self.b,) if self.b > 1 else ()) + tuple(sizes[name] for name in names)
            for names in self.layout.split(',')]


def of_step(config, n_blocks=None):
  """[Matmul] of a training step.

  Args:
    config: the whole config, resolved.
    n_blocks: of queries, see `of_attention`.
  """
  from gptjax.model.parameters import padded_vocab
  c, t, b = config.model, config.data.seq_len, config.train.microbatch_size
  matmul = functools.partial(Matmul, b=1, dtype=c.compute_dtype)
  found = of_attention(c, b, t, backward=True, n_blocks=n_blocks)
  for layers, i, o in layer_matrices(config):  # float32: see `cpu_matmul.result_dtype`
    found += [matmul(layers, 'mk,kn', m=b * t, k=i, n=o, result='float32'),
              matmul(layers, 'mk,nk', m=b * t, k=o, n=i, result='float32'),
              matmul(layers, 'km,kn', m=i, k=b * t, n=o, result='float32')]
  chunk = min(config.loss.chunk or t, t)
  chunks, n, v = -(-t // chunk), b * chunk, padded_vocab(c)
  found += [matmul(chunks, 'mk,nk', m=n, k=c.n_embd, n=v, result='float32'),
            matmul(chunks, 'mk,kn', m=n, k=v, n=c.n_embd, result='float32'),
            matmul(chunks, 'km,kn', m=v, k=n, n=c.n_embd, result='float32')]
  return merged(found, config.train.batch_size // b)


def of_batch(config, b, t, n_scored, max_logits=None, n_blocks=None):
  """[Matmul] of a batch of b rows of t tokens without gradients, by a model that is prepared for decoding.

  Args:
    config: the whole config; the compute dtype is not 'auto'.
    b, t: shape of the batch.
    n_scored: positions whose logits are computed.
    max_logits: number that is computed at a time; None: all.
    n_blocks: of queries, see `of_attention`.
  """
  attention = of_attention(config.model, b, t, backward=False, n_blocks=n_blocks)
  return merged([*attention, *of_weights(config, b * t, n_scored, max_logits)])


def of_weights(config, n, n_scored, max_logits=None):
  """[Matmul] of n tokens with the weights of a model that is prepared for decoding.

  A token that is generated has these alone: with its cache, attention moves few bytes beside the weights.

  Args:
    config, n_scored, max_logits: as in `of_batch`.
    n: tokens that are computed together.
  """
  from gptjax.model.parameters import padded_vocab
  from gptjax.parallel.sharding import count_blocks
  c, v = config.model, padded_vocab(config.model)
  matmul = functools.partial(Matmul, layout='mk,nk', b=1, dtype=c.compute_dtype, result='float32')
  parts = count_blocks(v, max(1, (max_logits or v * n_scored) // n_scored))
  return [*(matmul(layers, m=n, k=i, n=o) for layers, i, o in layer_matrices(config)),
          matmul(parts, m=n_scored, k=c.n_embd, n=-(-v // parts))]


def layer_matrices(config):
  """[(layers, inputs, outputs)] of the matrices in the layers of a Transformer."""
  import jax

  from gptjax.model.compute import projections
  from gptjax.model.gpt import GPT
  from gptjax.parallel import sharding
  with sharding.abstract_mesh():
    model = jax.eval_shape(lambda: GPT(jax.random.key(0), config))
  weights = [projection.w for _, projection in projections(model.h)]
  return [(w.shape[0], *w.declaration.matrix_shape(w.shape[1:])) for w in weights]


def of_attention(c, b, t, backward, n_blocks=None):
  """[Matmul] of attention in all layers, in blocks of queries, each with the keys that it needs.

  Args:
    c: `config.model`.
    b, t: shape of the batch.
    backward: whether the gradients are computed.
    n_blocks: of queries; None: as `gptjax.model.attention` has; 1: all keys for all queries.
  """
  from gptjax.model.attention import N_QUERY_BLOCKS
  from gptjax.model.parameters import head_size, n_kv_head
  block, found = -(-t // (n_blocks or N_QUERY_BLOCKS)), []
  matmul = functools.partial(Matmul, c.n_layer, b=b * n_kv_head(c), dtype=c.compute_dtype, result='float32')
  for start in range(0, t, block):
    end = min(start + block, t)
    s = end - (max(0, start - c.sliding_window + 1) if c.sliding_window else 0)
    q, d = (end - start) * c.n_head // n_kv_head(c), head_size(c)
    scores, values = matmul('mk,nk', m=q, k=d, n=s), matmul('mk,kn', m=q, k=s, n=d)
    sums_over_queries = matmul('km,kn', m=s, k=q, n=d)
    found += [scores, values]
    # Gradients of the weights, the queries, the values and the keys.
    found += [scores, values, sums_over_queries, sums_over_queries] if backward else []
  return found


def merged(matmuls, times=1):
  """The matmuls, `times` as often, with equal ones counted together."""
  counts = Counter()
  for matmul in matmuls:
    counts[matmul._replace(count=0)] += matmul.count * times
  return [matmul._replace(count=count) for matmul, count in counts.items()]
