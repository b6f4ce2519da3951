"""Initial weights of a run: pretrained, partly transferred, or fresh; and export of its language model."""

import copy
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.config.resume import NOT_WEIGHTS_FIELDS
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.finetune import step, trainable
from gptjax.finetune.model import Classifier
from gptjax.finetune.tasks import transforms
from gptjax.model.compute import stacked
from gptjax.model.parameters import Declaration, padded_vocab
from gptjax.parallel import sharding
from gptjax.pretrained import layout, open_source
from gptjax.train.step import graph


def open_pretrained(config):
  """The layout.Source and the tokenizer in a config; copies the shape of the source's model to the config.

  Args:
    config: unresolved; `model` is changed in place to the model of the weights.

  Raises:
    ValueError: a required source or tokenizer is missing or cannot be read.
  """
  if not config.init_from:
    if config.finetune.pretrained:
      raise InputError('config.init_from is missing: set it to a folder of pretrained weights, or start '
                       'from fresh weights with --config.finetune.pretrained=False')
    return None, _configured_tokenizer(config)
  source = open_source(config.init_from)
  if source.tokenizer is None and config.data.tokenizer:  # its size shows which rows are padding
    source = open_source(config.init_from, loading.load(config.data.tokenizer).n_vocab)
  fields = layout.config_from_fields(source.fields).model.to_dict()
  for name, value in fields.items():
    if name not in (*NOT_WEIGHTS_FIELDS, 'dropout'):  # the run chooses its own dropout
      config.model[name] = value
  layout.report_dropout(source, config.model.dropout)
  tokenizer = source.tokenizer or _configured_tokenizer(config)
  if tokenizer.n_vocab > config.model.n_vocab:
    raise InputError(f'the tokenizer {tokenizer.name} has {tokenizer.n_vocab} entries, but the model of '
                     f'config.init_from = {config.init_from!r} has only {config.model.n_vocab}: use the '
                     'tokenizer of the model')
  return source, tokenizer


def _configured_tokenizer(config):
  if not config.data.tokenizer:
    raise InputError('the weights have no tokenizer: choose one, like --config.data.tokenizer=gpt1:DIR')
  tokenizer = loading.load(config.data.tokenizer)
  if not config.init_from:
    config.model.n_vocab = tokenizer.n_vocab
  return tokenizer


def with_task_tokens(config):
  """A copy of the config for the fine-tuned model, whose vocabulary has three more tokens."""
  config = copy.deepcopy(config)
  config.model.n_vocab += 3
  return config


def init_state(config, kind, outputs, source, mesh):
  """The step.State before the first step.

  Args:
    config: of the run, from `with_task_tokens`.
    kind, outputs: see `Classifier`.
    source: layout.Source or None.
    mesh: the mesh.
  """
  def make_state(pretrained_params, declarations=None):
    model = Classifier(jax.random.key(config.train.seed), config, kind, outputs)
    params = nnx.to_pure_dict(nnx.state(model))
    if pretrained_params is not None:
      params['lm'] = transfer_weights(params['lm'], pretrained_params, config, declarations)
    return step.init_state(config, step.graph(config, kind, outputs), params)

  if source is None or not config.finetune.pretrained:
    return jax.jit(lambda: make_state(None))()
  pretrained_config = copy.deepcopy(config)
  pretrained_config.model.n_vocab -= 3
  make_state = functools.partial(make_state, declarations=layout.weight_declarations(config))
  shapes = sharding.with_shardings(layout.weight_shapes(pretrained_config), mesh)
  return jax.jit(make_state)(source.read(shapes))


def transfer_weights(fresh, pretrained, config, declarations):
  """Fresh weights with the transferred pretrained weights in their place (Figure 2, left).

  Embeddings and positions are always transferred; of the blocks the first `finetune.transfer_layers`; weights
  after the blocks only together with all blocks.

  Args:
    fresh, pretrained: nested dicts of weights.
    config: of the run.
    declarations: the weights' Declarations (`layout.weight_declarations`).
  """
  n, n_layer = config.finetune.transfer_layers, config.model.n_layer
  transfer_all = n in (-1, n_layer)
  transferred = {}
  for name, value in pretrained.items():
    if name == 'h':
      transferred[name] = _merge_blocks(fresh[name], value, n_layer if transfer_all else n)
    elif _is_table(declarations[name]):
      transferred[name] = _merge_rows(fresh[name], value, config.model.n_vocab - 3)
    elif transfer_all or isinstance(declarations[name], Declaration):  # positions; modules after the blocks
      transferred[name] = value
  return {**fresh, **transferred}


def _is_table(declaration):
  """Whether the declaration is that of a weight with one row per token."""
  return isinstance(declaration, Declaration) and 'vocab' in declaration.axes


def export_language_model(state, config):
  """The language model in a State as a plain GPT: without task tokens, with its LoRA merged."""
  plain = copy.deepcopy(config)
  plain.model.n_vocab -= 3
  declarations = layout.weight_declarations(plain)

  def make_params(state):
    differentiated, constant = trainable.to_compute_form(state.params, state.frozen, config)
    graphdef = step.graph(config, transforms.LANGUAGE_MODEL, 0)
    classifier = trainable.build_classifier(graphdef, differentiated, constant, config)
    lm = nnx.to_pure_dict(nnx.state(stacked(classifier.lm)))
    n, pad = plain.model.n_vocab, padded_vocab(plain.model) - plain.model.n_vocab
    for name in filter(lambda name: _is_table(declarations[name]), lm):
      spec = jax.typeof(lm[name]).sharding.spec
      lm[name] = jax.reshard(jnp.pad(jax.reshard(lm[name], jax.P())[:n], ((0, pad), (0, 0))), spec)
    return _merge_lora(lm)

  return nnx.merge(graph(plain), jax.jit(make_params)(state))


def _merge_lora(tree):
  """Weights in which each LoRA is added to its projection."""
  if not isinstance(tree, dict):
    return tree
  if 'lora' in tree:
    w, lora = tree['base']['w'], tree['lora']
    update = jnp.einsum('lir,lro->lio', lora['lora_a'], lora['lora_b']).reshape(w.shape)
    return {**tree['base'], 'w': w + jax.reshard(update, jax.typeof(w).sharding.spec)}
  return {name: _merge_lora(value) for name, value in tree.items()}


def _merge_rows(fresh, pretrained, n_vocab):
  """The embedding: the pretrained rows, then the fresh rows of the task tokens and of the padding."""
  spec = jax.typeof(fresh).sharding.spec
  fresh, pretrained = (jax.reshard(table, jax.P()) for table in (fresh, pretrained))
  return jax.reshard(jnp.concatenate([pretrained[:n_vocab], fresh[n_vocab:]]), spec)


def _merge_blocks(fresh, pretrained, n):
  """The first n layers pretrained, the others fresh; a `base` is a projection with a LoRA."""
  if not isinstance(fresh, dict):
    return jnp.concatenate([pretrained[:n], fresh[n:]])
  if 'base' in fresh:
    return {**fresh, 'base': _merge_blocks(fresh['base'], pretrained, n)}
  return {name: _merge_blocks(value, pretrained[name], n) for name, value in fresh.items()}
