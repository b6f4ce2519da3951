"""Which weights are trained: all, the last blocks, or LoRA; the head and the new tokens always are.

Weights form two trees, `trained` and `frozen`. With `full` the second tree is empty. Otherwise the embeddings
of the three task tokens are a weight of their own, `trained['marks']['wte']`, and are 0 in
`frozen['lm']['wte']`. With `last` the first blocks are in `frozen` and the last blocks in `trained`, both
stacked.

A step computes with the compute form of both trees: the embedding is one table again, and blocks that are not
scanned are a list of layers. Its trees are `differentiated`, of which gradients are taken, and `constant`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.model import parameters
from gptjax.model.compute import unrolled
from gptjax.parallel import sharding


def declarations(graphdef, params):
  """The Declarations of all weights of a `Classifier`, and of `marks` (see `split_params`).

  Args:
    graphdef: of the Classifier.
    params: all its weights.
  """
  declared = parameters.declarations(nnx.merge(graphdef, params))
  return {**declared, 'marks': {'wte': declared['lm']['wte']}}


def split_params(params, config):
  """(trained, frozen) from all weights of a `Classifier`."""
  mode = config.finetune.train
  if mode == 'full':
    return params, {}
  lm, one_hot = dict(params['lm']), _task_token_one_hot(config)
  others = {name: value for name, value in params.items() if name != 'lm'}
  trained = {**others, 'marks': {'wte': _select_rows(lm['wte'], one_hot)}, 'lm': {}}
  lm['wte'] = lm['wte'] * (1 - one_hot.sum(1))[:, None]
  if mode == 'lora':
    trained['lm']['h'], lm['h'] = _partition(lm['h'], lambda path: path[-1].key in ('lora_a', 'lora_b'))
  else:
    first = config.model.n_layer - config.finetune.last_layers
    trained['lm']['h'] = jax.tree.map(lambda w: w[first:], lm['h'])
    lm['h'] = jax.tree.map(lambda w: w[:first], lm['h'])
    if 'ln_f' in lm:
      trained['lm']['ln_f'] = lm.pop('ln_f')
  return trained, {'lm': lm}


def merge_params(trained, frozen):
  """All weights under their names in the `Classifier`; stacked blocks may be incomplete."""
  return _merge_trees(frozen, {name: value for name, value in trained.items() if name != 'marks'})


def to_compute_form(trained, frozen, config):
  """(differentiated, constant): the weights in the form in which a step uses them.

  Blocks that do not need to be scanned are a list of layers and not stacked.
  """
  if config.finetune.train == 'full':
    return _unstack_layers(trained, config), frozen
  constant = {'lm': {name: value for name, value in frozen['lm'].items() if name != 'wte'}}
  wte = frozen['lm']['wte']
  task_rows = jnp.einsum('vs,sd->vd', _task_token_one_hot(config), trained['marks']['wte'],
                         out_sharding=jax.typeof(wte).sharding.spec)
  others = {name: value for name, value in trained.items() if name != 'marks'}
  return _unstack_layers({**others, 'lm': {**trained['lm'], 'wte': wte + task_rows}}, config), constant


def to_storage_form(gradients, config):
  """Gradients of the trained weights, from those of the differentiated weights."""
  if isinstance(gradients['lm'].get('h'), list):
    stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *gradients['lm']['h'])
    gradients = {**gradients, 'lm': {**gradients['lm'], 'h': stacked}}
  if config.finetune.train == 'full':
    return gradients
  lm = dict(gradients['lm'])
  return {**gradients, 'marks': {'wte': _select_rows(lm.pop('wte'), _task_token_one_hot(config))}, 'lm': lm}


def build_classifier(graphdef, differentiated, constant, config):
  """The `Classifier` from the two trees of `to_compute_form`."""
  layers = differentiated['lm'].get('h')
  if not isinstance(layers, list):
    return nnx.merge(graphdef, _merge_trees(constant, differentiated))
  with_layer = lambda layer: {**differentiated, 'lm': {**differentiated['lm'], 'h': layer}}
  models = [nnx.merge(graphdef, _merge_trees(constant, with_layer(layer))) for layer in layers]
  blocks = [model.lm.h for model in models]
  if config.finetune.train == 'last':  # the frozen blocks get no gradients
    frozen_model = nnx.merge(graphdef, _merge_trees(differentiated, constant))
    blocks = [*unrolled(frozen_model.lm).h, *blocks]
  models[0].lm.h = nnx.List(blocks)
  return models[0]


def _unstack_layers(differentiated, config):
  """The same tree with a list of layers if that is how the layers are computed."""
  if config.finetune.train == 'lora' or 'h' not in differentiated['lm'] or (
      config.finetune.train == 'full' and config.model.scan):
    return differentiated
  leaves, tree = jax.tree.flatten(differentiated['lm']['h'])
  layers = [tree.unflatten(layer) for layer in zip(*map(jnp.unstack, leaves))]
  return {**differentiated, 'lm': {**differentiated['lm'], 'h': layers}}


def _task_token_one_hot(config):
  """float32[v, 3]: the embedding row of each task token as a one-hot column."""
  token_ids = config.model.n_vocab - 3 + jnp.arange(3)
  pad = config.model.pad_vocab_to
  rows = jnp.arange(-(-config.model.n_vocab // pad) * pad, out_sharding=sharding.storage_spec('vocab'))
  return (rows[:, None] == token_ids[None]).astype(jnp.float32)


def _select_rows(table, one_hot):
  """The embedding rows of the task tokens."""
  return jnp.einsum('vs,vd->sd', one_hot, table, out_sharding=sharding.storage_spec(None, 'embed'))


def _partition(tree, predicate):
  """Two trees of nested dicts: the leaves whose path satisfies `predicate`, and the others."""
  def keep_leaves(node, path, expected):
    if not isinstance(node, dict):
      return node if bool(predicate(path)) == expected else None
    children = {name: keep_leaves(value, (*path, jax.tree_util.DictKey(name)), expected)
                for name, value in node.items()}
    return {name: value for name, value in children.items() if value is not None} or None
  return keep_leaves(tree, (), True) or {}, keep_leaves(tree, (), False) or {}


def _merge_trees(a, b):
  """Nested dicts merged; where both have a leaf, that of b is used."""
  if not (isinstance(a, dict) and isinstance(b, dict)):
    return b
  return {name: _merge_trees(a.get(name, b.get(name)), b.get(name, a.get(name)))
          for name in a.keys() | b.keys()}
