"""Forms of the model for computing: the dtype of each weight, and that making one changes no other."""

import functools
from unittest import mock

import jax
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from finetune.tiny import batch_of, config_of, finetune_state
from flax import nnx
from variants import FLOAT32, VARIANTS, few

from gptjax.finetune import step
from gptjax.finetune.model import Classifier, add_lora
from gptjax.finetune.tasks.transforms import LANGUAGE_MODEL
from gptjax.generate import kv_cache
from gptjax.model.compute import gathered_once, in_dtype, multiplied_in, stacked, unrolled
from gptjax.model.gpt import _logits
from gptjax.model.layers import Norm, Projection
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declaration
from gptjax.parallel import sharding
from gptjax.train import step as train

FINETUNE = {**VARIANTS, 'scanned': {'model.scan': True}, 'unrolled': {'model.scan': False},
            'last': {'finetune.train': 'last'}, 'lora': {'finetune.train': 'lora'}}
BFLOAT16 = {'model.compute_dtype': 'bfloat16'}


def made(config):
  return language_model(jax.random.key(0), config)


def dtypes(tree):
  """{name: dtype} of a module, a list of its parts, or nested dicts."""
  tree = nnx.to_pure_dict(nnx.state(tree)) if isinstance(tree, nnx.Module) else tree
  return {jax.tree_util.keystr(path, simple=True, separator='/'): str(leaf.dtype)
          for path, leaf in jax.tree.leaves_with_path(tree)}


def module_of(name):
  """The path of a weight's module, without the number of a layer."""
  return tuple(part for part in name.split('/')[:-1] if not part.isdigit())


def expected_dtypes(model, names):
  """{name: dtype}: gains, which start as ones, what is beside them, and `FLOAT32` are float32."""
  gains = {module_of(jax.tree_util.keystr(path, simple=True, separator='/'))
           for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model)))
           if (leaf == 1).all()}
  exact = lambda module: module in gains or '/'.join(module).endswith(FLOAT32)
  return {name: 'float32' if exact(module_of(name)) else 'bfloat16' for name in names}


@functools.cache
def fresh(name):
  return jax.jit(lambda: made(tiny_config(**VARIANTS[name])))()


@pytest.mark.parametrize('form', [lambda model: model, unrolled, lambda model: stacked(unrolled(model)),
                                  lambda model: nnx.to_pure_dict(nnx.state(model))],
                         ids=['module', 'unrolled', 'stacked', 'dict'])
@pytest.mark.parametrize('name', VARIANTS)
def test_each_weight_has_the_dtype_that_it_declares(name, form):
  changes = VARIANTS[name]
  with mesh_of():
    model = jax.eval_shape(lambda: form(in_dtype(made(tiny_config(**changes)), 'bfloat16')))
    found = dtypes(model)
    assert found == expected_dtypes(fresh(name), found)
  assert set(found.values()) == ({'bfloat16'} if 'model.architecture' in changes else {'bfloat16', 'float32'})


@pytest.mark.first_cases(3)
@pytest.mark.parametrize('name', few(FINETUNE))
def test_each_weight_of_fine_tuning_has_the_dtype_that_it_declares(name):
  config = config_of(**FINETUNE[name], **BFLOAT16)
  with mesh_of():
    graphdef = step.graph(config, 'choice', 1)
    state = jax.eval_shape(lambda: finetune_state(config, 'choice', 1))
    trees = jax.eval_shape(functools.partial(step.compute_params, config=config, graphdef=graphdef), state)
    found = {name: dtype for tree in trees for name, dtype in dtypes(tree).items()}
    classifier = jax.jit(lambda: Classifier(jax.random.key(0), config, 'choice', 1))()
    assert len(found) > 6 and found == expected_dtypes(classifier, found)


def computed_with(function, *arguments):
  """The (class, dtype) of weights of all norms and projections that a traced function calls."""
  seen = set()

  def spy(kind, name):
    call = kind.__call__
    def called(self, *given, **named):
      param = getattr(self, name)
      seen.add((kind.__name__, str(param[...].dtype), declaration(param).float32))
      return call(self, *given, **named)
    return mock.patch.object(kind, '__call__', called)

  with spy(Norm, 'g'), spy(Projection, 'w'):
    jax.make_jaxpr(lambda *given: function(*given))(*arguments)  # a new function, which no cache knows
  return seen


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('parts', [1, 2])
def test_norms_compute_in_float32_in_every_job(scan, parts):
  changes = {**BFLOAT16, 'model.scan': scan, 'train.microbatch_size': 8 // parts}
  config, tuned = tiny_config(**changes), config_of(**changes)
  norms, products = ('Norm', 'float32', True), ('Projection', 'bfloat16', False)
  with mesh_of() as mesh:
    state, batch = train.init_state(config), sharding.shard_batch(random_batch(config), mesh)
    pretrain = functools.partial(train.train_step, config=config, graphdef=train.graph(config), steps=10)
    evaluate = functools.partial(train.eval_step, config=config, graphdef=train.graph(config))
    assert computed_with(pretrain, state, batch) == {norms, products}
    assert computed_with(evaluate, state.params, batch) == {norms, products}
    assert computed_with(_logits.__wrapped__, made(config), batch['inputs']) == {norms, products}
    first, graphdef = finetune_state(tuned, 'choice', 1), step.graph(tuned, 'choice', 1)
    finetune = functools.partial(step.train_step, config=tuned, graphdef=graphdef, is_regression=False,
                                 steps=10)
    predict = functools.partial(step.predict_step, config=tuned, graphdef=graphdef)
    for job in finetune, predict:
      found = computed_with(job, first, sharding.shard_batch(batch_of(tuned, 2), mesh))
      assert found == {norms, products, ('Projection', 'float32', True)}


@pytest.mark.ci
@pytest.mark.parametrize('norm', ['before', 'after'])
def test_fine_tuning_and_pretraining_compute_the_same_loss_in_bfloat16(norm):
  changes = {**BFLOAT16, 'model.norm': norm, 'model.init_std': 0.2}
  config, tuned = tiny_config(**changes), config_of(**changes)
  batch = random_batch(config)
  tokens = np.concatenate([batch['inputs'], batch['targets'][:, -1:]], axis=1)[:, :24]
  with mesh_of():
    lm = finetune_state(tuned, LANGUAGE_MODEL, 0).params['lm']
    leaves, tree = jax.tree.flatten(lm)
    lm = tree.unflatten([w + 0.1 * jax.random.normal(jax.random.key(i), w.shape)
                         for i, w in enumerate(leaves)])
    one = {'tokens': tokens[:, None], 'lengths': np.full((8, 1), 24, np.int32),
           'weights': np.ones(8, np.float32), 'labels': np.zeros(8, np.float32)}
    state = step.init_state(tuned, step.graph(tuned, LANGUAGE_MODEL, 0), {'lm': lm})
    run = functools.partial(step.loss_and_grads, config=tuned, graphdef=step.graph(tuned, LANGUAGE_MODEL, 0),
                            is_regression=False)
    (loss, _, _), _ = jax.jit(run)(state, one, None)
    targets = np.concatenate([tokens[:, 1:], np.full((8, 1), -1, np.int32)], axis=1)
    run = functools.partial(train.loss_and_grads, config=config, graphdef=train.graph(config))
    other, _ = jax.jit(run)(lm, {'inputs': tokens, 'targets': targets}, None)
  np.testing.assert_allclose(loss, other, rtol=1e-6)


def test_a_dict_of_weights_declares_no_dtype_and_is_refused():
  with mesh_of(), pytest.raises(AssertionError, match='is not a weight of a module'):
    in_dtype({'ln_1': {'g': np.ones(3, np.float32)}}, 'bfloat16')


PURE = {'in_dtype': (lambda model: in_dtype(model, 'bfloat16'), {}),
        'multiplied_in': (lambda model: multiplied_in(model, 'bfloat16'), {}),
        'multiplied_in, untied': (lambda model: multiplied_in(model, 'bfloat16'),
                                {'model.tie_word_embeddings': False}),
        'gathered_once': (gathered_once, {}),
        'unrolled': (unrolled, {}),
        'stacked': (lambda model: stacked(unrolled(model)), {}),
        'decode': (lambda model: kv_cache._prepare.__wrapped__(model, True), {}),
        'decode in bfloat16': (lambda model: kv_cache._prepare.__wrapped__(model, True), BFLOAT16),
        'decode in int8': (lambda model: kv_cache._prepare.__wrapped__(model, False, True), {}),
        'adapted': (lambda model: add_lora(model.h, jax.random.key(0), 2, 2), {})}


def parts_of(module):
  """All that a module consists of: structure with static fields, Params and arrays as they are."""
  params = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, nnx.Variable))
  return jax.tree.structure(module), list(map(id, params)), list(map(id, jax.tree.leaves(module)))


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('function, changes', PURE.values(), ids=PURE)
def test_what_makes_a_new_module_leaves_the_one_given_as_it_was(function, changes):
  with mesh_of():
    model = made(tiny_config(**changes))
    before = parts_of(model)
    new = function(model)
    assert parts_of(model) == before
    assert not set(parts_of(new)[1]) & set(before[1]), 'a Param is in both: to write to one would change both'


def test_stacked_layers_are_made_of_a_list_that_stays_a_list():
  with mesh_of():
    model = unrolled(made(tiny_config()))
    before = parts_of(model)
    stacked(model)
    assert parts_of(model) == before
