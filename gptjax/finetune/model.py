"""The model of GPT-1's second stage: a language model with a linear head on its last activation.

Letters: b examples, g sequences per example, n = b g sequences, t time, d width, c classes.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.errors import InputError
from gptjax.finetune.tasks.transforms import LANGUAGE_MODEL
from gptjax.model.compute import copied, projections
from gptjax.model.keys import named
from gptjax.model.layers import Projection, dropout, flatten_inputs, fold_in
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations
from gptjax.parallel import sharding
from gptjax.parallel.sharding import merge_axes, split_axis


class LoRAProjection(nnx.Module):
  """A projection with Flax's LoRA added: x W + b + x A B."""

  def __init__(self, base, lora):
    self.base, self.lora = base, lora

  @property
  def w(self):
    return self.base.w

  def __call__(self, x, activation=lambda y: y):
    rows = flatten_inputs(x, self.w.declaration.axes)
    y = self.base.affine(rows)
    low_rank = sharding.replicated(self.lora)(rows)
    y += jax.reshard(jnp.reshape(low_rank, y.shape), jax.typeof(y).sharding.spec)
    return self.base.unflattened(activation(y), x.shape[:2])


def add_lora(block, key, rank, n_layer):
  """A copy of stacked layers with a LoRA added to each projection; initially their outputs do not change.

  Raises:
    InputError: a layer has a matrix that is not the weight of a `Projection`.
  """
  block = copied(block)
  _check_adaptable(block)
  for i, ((*parents, name), base) in enumerate(projections(block)):
    n_in, n_out = base.w.declaration.matrix_shape(base.w.shape[1:])
    make_lora = lambda key: nnx.LoRA(n_in, rank, n_out, rngs=nnx.Rngs(key))
    lora = jax.vmap(make_lora)(jax.random.split(jax.random.fold_in(key, i), n_layer))
    setattr(functools.reduce(getattr, parents, block), name, LoRAProjection(base, lora))
  return block


def _check_adaptable(block):
  adapted = {(*path, 'w') for path, _ in projections(block)}
  for path, facts in jax.tree.leaves_with_path(declarations(block)):
    path = tuple(key.key for key in path)
    if facts.inputs and path not in adapted:
      raise InputError(f'config.finetune.train = lora adapts projections, and {"/".join(path)} of a layer is '
                       'not a projection: train full or last')


class Classifier(nnx.Module):
  """The model to fine-tune.

  Call the constructor under `jax.set_mesh`.

  Args:
    key: JAX random key.
    config: the whole config; its `model.n_vocab` counts the tokenizer's tokens and three task tokens.
    kind: of the task, see `transforms`.
    outputs: number of classes; 1 for a choice or a number; 0: there is no head.
  """

  def __init__(self, key, config, kind, outputs):
    # Keys are derived by name: a pretrained model may have used a `split` of the same key.
    key_clf, key_lora = named(key, 'clf'), named(key, 'lora')
    self.lm = language_model(jax.random.split(key, 3)[0], config)
    if config.finetune.train == 'lora':
      self.lm.h = add_lora(self.lm.h, key_lora, config.finetune.lora_rank, config.model.n_layer)
    if outputs:  # the head is small: it computes in float32
      self.clf = Projection(key_clf, [(config.model.n_embd, 'embed')], [(outputs, None)],
                            config.model.init_std, float32=True)
    self.kind, self.head_dropout = kind, config.finetune.head_dropout

  def __call__(self, tokens, lengths, keys=None):
    """Features of all sequences, and the head's output for each example.

    Args:
      tokens: int32[b, g, t].
      lengths: int32[b, g]; the last token of each sequence is the end token.
      keys: key[b] for dropout, one per example; None: no dropout.

    Returns:
      ([n, t, d] in the compute dtype, float32[b, c]: logits, one per answer for a choice, or a number; None
      without a head).
    """
    b, g, t = tokens.shape
    x = self.lm.features(merge_axes(tokens, 0), self._sequence_keys(keys, g))
    if self.kind == LANGUAGE_MODEL:
      return x, None
    last = jnp.arange(t)[None] == merge_axes(lengths, 0)[:, None] - 1
    h = split_axis(jnp.einsum('nt,ntd->nd', last.astype(x.dtype), x), 0, (b, g))
    if self.kind == 'similarity':
      h = h.sum(1, keepdims=True)
    # One mask for all sequences of an example, as in the released code.
    mask = dropout(jnp.ones_like(h[:, 0]), self.head_dropout, fold_in(keys, g))
    h = (h * mask[:, None]).astype(jnp.float32)
    return x, merge_axes(self.clf(h), 1)

  def _sequence_keys(self, keys, g):
    """key[n], one per sequence, from key[b]."""
    if keys is None:
      return None
    return merge_axes(jnp.stack([fold_in(keys, k) for k in range(g)], axis=1), 0)
