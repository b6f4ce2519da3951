"""Loss of a model with float and with int8 weights: python docs/int8.py FOLDER TEXT [SEQUENCES]

FOLDER is what `gptjax generate --from` takes, TEXT a file, of which the first sequences of at most 512 tokens
are scored (default: 64).
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import gptjax
from gptjax.generate import kv_cache
from gptjax.parallel import sharding

ROWS = 4  # sequences at a time


@jax.jit
def nats_per_token(model, tokens):
  log_p = jax.nn.log_softmax(model.logits(model.features(tokens))[:, :-1])
  return -jnp.take_along_axis(log_p, tokens[:, 1:, None], -1).mean()


def main(folder, text, sequences=64):
  sharding.ensure_mesh()
  model, tokenizer = gptjax.load(folder)
  ids = np.asarray(tokenizer.encode(open(text, encoding='utf-8').read()), np.int32)
  length = min(model.n_ctx, 512)
  batches = ids[:min(len(ids) // length, int(sequences)) // ROWS * ROWS * length].reshape(-1, ROWS, length)
  losses = {}
  for weight_dtype in (None, 'int8'):
    prepared = kv_cache.prepare_for_decoding(model, weight_dtype)
    losses[weight_dtype] = np.array([nats_per_token(prepared, batch) for batch in batches])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(prepared))
    print(f'{weight_dtype or model.dtype:8} {losses[weight_dtype].mean():.5f} nats per token, '
          f'{size / 1e6:,.1f} MB')
  change = losses['int8'].mean() / losses[None].mean() - 1
  print(f'change: {change:+.3%} of {batches[:, :, 1:].size:,} tokens')


if __name__ == '__main__':
  main(*sys.argv[1:])
