"""Which weights are trained: all, the last blocks, or LoRA; head and new tokens always.

Weights are two trees, `trained` and `frozen`. In `full` the second one is empty. Otherwise the rows of the
three new tokens are a weight of their own, `trained['marks']['wte']`, and 0 in `frozen['lm']['wte']`. Of
blocks, `last` keeps the first ones in `frozen`, the last ones in `trained`, both stacked.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.model import parameters
from gptjax.model.compute import unrolled
from gptjax.parallel import sharding


def declarations(graphdef, params):
  """The Declarations of all weights of a `Classifier`, and of `marks` (see `separate`).

  Args:
    graphdef: of the Classifier.
    params: all its weights.
  """
  declared = parameters.declarations(nnx.merge(graphdef, params))
  return {**declared, 'marks': {'wte': declared['lm']['wte']}}


def split_params(params, config):
  """(trained, frozen) of all weights of a `Classifier`."""
  how = config.finetune.train
  if how == 'full':
    return params, {}
  lm, hot = dict(params['lm']), _task_token_one_hot(config)
  others = {name: value for name, value in params.items() if name != 'lm'}
  trained = {**others, 'marks': {'wte': _select_rows(lm['wte'], hot)}, 'lm': {}}
  lm['wte'] = lm['wte'] * (1 - hot.sum(1))[:, None]
  if how == 'lora':
    trained['lm']['h'], lm['h'] = _partition(lm['h'], lambda path: path[-1].key in ('lora_a', 'lora_b'))
  else:
    first = config.model.n_layer - config.finetune.last_layers
    trained['lm']['h'] = jax.tree.map(lambda w: w[first:], lm['h'])
    lm['h'] = jax.tree.map(lambda w: w[:first], lm['h'])
    if 'ln_f' in lm:
      trained['lm']['ln_f'] = lm.pop('ln_f')
  return trained, {'lm': lm}


def merge_params(trained, frozen):
  """All weights by their names in the `Classifier`, whatever `separate` made of their shapes."""
  return _merge_trees(frozen, {name: value for name, value in trained.items() if name != 'marks'})


def to_compute_form(trained, frozen, config):
  """(moving, still): the weights as a step wants them, those that it takes gradients of first.

  Blocks are a list of layers, and not stacked, where they need not be scanned.
  """
  if config.finetune.train == 'full':
    return _unstack_layers(trained, config), frozen
  still = {'lm': {name: value for name, value in frozen['lm'].items() if name != 'wte'}}
  wte = frozen['lm']['wte']
  placed = jnp.einsum('vs,sd->vd', _task_token_one_hot(config), trained['marks']['wte'],
                      out_sharding=jax.typeof(wte).sharding.spec)
  others = {name: value for name, value in trained.items() if name != 'marks'}
  return _unstack_layers({**others, 'lm': {**trained['lm'], 'wte': wte + placed}}, config), still


def to_storage_form(gradients, config):
  """Gradients of the trained weights, from those of `entered`'s moving ones."""
  if isinstance(gradients['lm'].get('h'), list):
    stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *gradients['lm']['h'])
    gradients = {**gradients, 'lm': {**gradients['lm'], 'h': stacked}}
  if config.finetune.train == 'full':
    return gradients
  lm = dict(gradients['lm'])
  return {**gradients, 'marks': {'wte': _select_rows(lm.pop('wte'), _task_token_one_hot(config))}, 'lm': lm}


def build_classifier(graphdef, moving, still, config):
  """The `Classifier` of the two trees that `entered` gives."""
  layers = moving['lm'].get('h')
  if not isinstance(layers, list):
    return nnx.merge(graphdef, _merge_trees(still, moving))
  merged = [nnx.merge(graphdef, _merge_trees(still, {**moving, 'lm': {**moving['lm'], 'h': layer}}))
            for layer in layers]
  blocks = [model.lm.h for model in merged]
  if config.finetune.train == 'last':  # of those that stand still no gradient is made
    first = nnx.merge(graphdef, _merge_trees(moving, still))
    blocks = [*unrolled(first.lm).h, *blocks]
  merged[0].lm.h = nnx.List(blocks)
  return merged[0]


def _unstack_layers(moving, config):
  """The same with a list of layers, where that is how they are computed."""
  if config.finetune.train == 'lora' or 'h' not in moving['lm'] or (
      config.finetune.train == 'full' and config.model.scan):
    return moving
  leaves, tree = jax.tree.flatten(moving['lm']['h'])
  layers = [tree.unflatten(layer) for layer in zip(*map(jnp.unstack, leaves))]
  return {**moving, 'lm': {**moving['lm'], 'h': layers}}


def _task_token_one_hot(config):
  """float32[v, 3]: which row of the embedding is which new token's."""
  marks = config.model.n_vocab - 3 + jnp.arange(3)
  pad = config.model.pad_vocab_to
  rows = jnp.arange(-(-config.model.n_vocab // pad) * pad, out_sharding=sharding.storage_spec('vocab'))
  return (rows[:, None] == marks[None]).astype(jnp.float32)


def _select_rows(table, hot):
  return jnp.einsum('vs,vd->sd', hot, table, out_sharding=sharding.storage(None, 'embed'))


def _partition(tree, wanted):
  """Two trees of nested dicts: the leaves whose path is wanted, and the others."""
  def keep(node, path, yes):
    if not isinstance(node, dict):
      return node if bool(wanted(path)) == yes else None
    kept = {name: keep(value, (*path, jax.tree_util.DictKey(name)), yes) for name, value in node.items()}
    return {name: value for name, value in kept.items() if value is not None} or None
  return keep(tree, (), True) or {}, keep(tree, (), False) or {}


def _merge_trees(a, b):
  """Nested dicts as one; where both have a leaf, that of b."""
  if not (isinstance(a, dict) and isinstance(b, dict)):
    return b
  return {name: _merge_trees(a.get(name, b.get(name)), b.get(name, a.get(name)))
          for name in a.keys() | b.keys()}
