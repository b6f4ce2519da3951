"""Where the weights of a fine-tuning run begin: pretrained, transferred in part, or fresh."""

import copy
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.config.resume import OF_THE_RUN
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.finetune import parts, step
from gptjax.finetune.model import Classifier
from gptjax.finetune.tasks import transforms
from gptjax.model.compute import stacked
from gptjax.model.parameters import Declaration, padded_vocab
from gptjax.parallel import sharding
from gptjax.pretrained import layout, open_source
from gptjax.train.step import graph


def source_of(config):
  """The layout.Source and the tokenizer that a config names; the shape of its model is that of the source.

  Args:
    config: as written; `model` is changed in place to what the weights were made for.

  Raises:
    ValueError: there is no source where one is needed, or no tokenizer, or it cannot be read.
  """
  if not config.init_from:
    if config.finetune.pretrained:
      raise InputError('config.init_from is missing: name a folder of pretrained weights, or begin with '
                       'fresh ones by --config.finetune.pretrained=False')
    return None, _own_tokenizer(config)
  source = open_source(config.init_from)
  if source.tokenizer is None and config.data.tokenizer:  # its entries tell which rows are padding
    source = open_source(config.init_from, loading.load(config.data.tokenizer).n_vocab)
  fields = layout.config_from_fields(source.fields).model.to_dict()
  for name, value in fields.items():
    if name not in (*OF_THE_RUN, 'dropout'):  # what to drop in training is the run's own choice
      config.model[name] = value
  tokenizer = source.tokenizer or _own_tokenizer(config)
  if tokenizer.n_vocab > config.model.n_vocab:
    raise InputError(f'the tokenizer {tokenizer.name} has {tokenizer.n_vocab} entries, but the model of '
                     f'config.init_from = {config.init_from!r} only {config.model.n_vocab}')
  return source, tokenizer


def _own_tokenizer(config):
  if not config.data.tokenizer:
    raise InputError('no tokenizer lies with the weights: name one, --config.data.tokenizer=gpt1:DIR say')
  tokenizer = loading.load(config.data.tokenizer)
  if not config.init_from:
    config.model.n_vocab = tokenizer.n_vocab
  return tokenizer


def with_marks(config):
  """The config of the model that is fine-tuned: with three tokens more."""
  config = copy.deepcopy(config)
  config.model.n_vocab += 3
  return config


def first_state(config, kind, outputs, source, mesh):
  """The step.State before the first step.

  Args:
    config: of the run, from `with_marks`.
    kind, outputs: see `Classifier`.
    source: layout.Source or None.
    mesh: the mesh.
  """
  def make(given, facts=None):
    model = Classifier(jax.random.key(config.train.seed), config, kind, outputs)
    params = nnx.to_pure_dict(nnx.state(model))
    if given is not None:
      params['lm'] = transferred(params['lm'], given, config, facts)
    return step.first_state(config, step.graph(config, kind, outputs), params)

  if source is None or not config.finetune.pretrained:
    return jax.jit(lambda: make(None))()
  pretrained = copy.deepcopy(config)
  pretrained.model.n_vocab -= 3
  make = functools.partial(make, facts=layout.weight_declarations(config))
  return jax.jit(make)(source.read(sharding.with_shardings(layout.weight_shapes(pretrained), mesh)))


def transferred(fresh, given, config, facts):
  """Fresh weights of a language model with those that are taken over in their place (Figure 2, left).

  Embeddings and positions always; of blocks the first `finetune.transfer_layers`; what comes after the
  blocks only with all of them.

  Args:
    fresh, given: nested dicts of weights.
    config: of the run.
    facts: the weights' Declarations (`layout.declared`).
  """
  n, n_layer = config.finetune.transfer_layers, config.model.n_layer
  everything = n in (-1, n_layer)
  taken = {}
  for name, value in given.items():
    if name == 'h':
      taken[name] = _blocks(fresh[name], value, n_layer if everything else n)
    elif _is_table(facts[name]):
      taken[name] = _rows(fresh[name], value, config.model.n_vocab - 3)
    elif everything or isinstance(facts[name], Declaration):  # positions, or a module after the blocks
      taken[name] = value
  return {**fresh, **taken}


def _is_table(facts):
  """Whether a part of the model is a weight with one row per token."""
  return isinstance(facts, Declaration) and 'vocab' in facts.axes


def language_model(state, config):
  """The language model in a State as a GPT like any other: without new tokens, its LoRAs added up."""
  plain = copy.deepcopy(config)
  plain.model.n_vocab -= 3
  facts = layout.weight_declarations(plain)

  def make(state):
    moving, still = parts.entered(state.params, state.frozen, config)
    joined = parts.assembled(step.graph(config, transforms.TEXT, 0), moving, still, config)
    lm = nnx.to_pure_dict(nnx.state(stacked(joined.lm)))
    n, pad = plain.model.n_vocab, padded_vocab(plain.model) - plain.model.n_vocab
    for name in filter(lambda name: _is_table(facts[name]), lm):
      place = jax.typeof(lm[name]).sharding.spec
      lm[name] = jax.reshard(jnp.pad(jax.reshard(lm[name], jax.P())[:n], ((0, pad), (0, 0))), place)
    return _added_up(lm)

  return nnx.merge(graph(plain), jax.jit(make)(state))


def _added_up(tree):
  """Weights in which each projection has what its LoRA added to it."""
  if not isinstance(tree, dict):
    return tree
  if 'lora' in tree:
    w, low = tree['base']['w'], tree['lora']
    added = jnp.einsum('lir,lro->lio', low['lora_a'], low['lora_b']).reshape(w.shape)
    return {**tree['base'], 'w': w + jax.reshard(added, jax.typeof(w).sharding.spec)}
  return {name: _added_up(value) for name, value in tree.items()}


def _rows(fresh, given, n_vocab):
  """The embedding: the rows of the new tokens, and padding, after those that are given."""
  place = jax.typeof(fresh).sharding.spec
  fresh, given = (jax.reshard(table, jax.P()) for table in (fresh, given))
  return jax.reshard(jnp.concatenate([given[:n_vocab], fresh[n_vocab:]]), place)


def _blocks(fresh, given, n):
  """The first n layers as given, the others fresh; a `base` is a projection that has a LoRA beside it."""
  if not isinstance(fresh, dict):
    return jnp.concatenate([given[:n], fresh[n:]])
  if 'base' in fresh:
    return {**fresh, 'base': _blocks(fresh['base'], given, n)}
  return {name: _blocks(value, given[name], n) for name, value in fresh.items()}
