"""Random keys: each has one use, so that no two weights and no two dropout masks are correlated."""

import functools
import itertools
import zlib
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from finetune.tiny import config_of
from flax import nnx
from jax.extend import core
from variants import VARIANTS, few

from gptjax.finetune.model import Classifier
from gptjax.generate import sampling
from gptjax.model import keys
from gptjax.model import layers as attention
from gptjax.model.compute import copied, unrolled
from gptjax.model.lstm import language_model
from gptjax.parallel import sharding
from gptjax.train import step as train

FINETUNE = {**VARIANTS, 'lora': {'finetune.train': 'lora', 'model.norm': 'before'}}
STEPS = 3
DRAW, BRANCH = ('random_bits', 'random_unwrap'), ('random_split', 'random_fold_in')  # JAX's primitives


class Uses:
  """The keys that functions use, as Counters of their key data.

  drawn: keys that an array was drawn from, or a kernel took.
  branched: keys that others were made of.
  """

  def __init__(self):
    self.drawn, self.branched = Counter(), Counter()

  def of(self, function, *arguments):
    """Goes through a function's primitives; computes nothing but keys."""
    closed = jax.make_jaxpr(function)(*arguments)
    known = lambda value: lambda: value
    self._walk(closed.jaxpr, list(map(known, closed.consts)), list(map(known, jax.tree.leaves(arguments))))

  def _walk(self, jaxpr, consts, arguments):
    """Functions that give the outputs of a jaxpr, from functions that give its inputs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    read = lambda atom: (lambda: atom.val) if isinstance(atom, core.Literal) else values[atom]
    for equation in jaxpr.eqns:
      inputs, name = list(map(read, equation.invars)), equation.primitive.name
      inner = next((equation.params[key] for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
                    if key in equation.params), None)
      if name in DRAW + BRANCH:
        words = np.asarray(jax.random.key_data(inputs[0]())).reshape(-1, 2).tolist()
        (self.drawn if name in DRAW else self.branched).update(map(tuple, words))
      if inner is not None and any(one in str(inner) for one in DRAW + BRANCH):
        assert name not in ('scan', 'while'), 'keys within a loop would be used unseen'
        inner = inner if hasattr(inner, 'consts') else core.ClosedJaxpr(inner, ())
        outputs = self._walk(inner.jaxpr, [lambda x=x: x for x in inner.consts], inputs)
      else:
        outputs = _later(equation, inputs)
      values.update(zip(equation.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))

  def check(self):
    assert self.drawn and max(self.drawn.values()) == 1, 'two arrays are drawn from one key'
    assert not self.drawn.keys() & self.branched.keys(), 'a key is drawn from, and is made branches of'


def _later(equation, inputs):
  """Functions that give the outputs of an equation, which is computed if one of them is called."""
  @functools.cache
  def out():
    found = equation.primitive.bind(*(x() for x in inputs), **equation.params)
    return found if equation.primitive.multiple_results else [found]
  return [lambda i=i: out()[i] for i in range(len(equation.outvars))]


def weights(model):
  """{name: array}, each layer by itself, of weights that are drawn."""
  found = {}
  for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model))):
    name, leaf = jax.tree_util.keystr(path, simple=True, separator='/'), np.asarray(leaf)
    layers = enumerate(leaf) if 'h/' in name else [('', leaf)]
    found |= {f'{name} {layer}': values.ravel() for layer, values in layers if values.std()}
  return found


def assert_uncorrelated(found):
  for (name, one), (other_name, other) in itertools.combinations(found.items(), 2):
    n = min(one.size, other.size)
    if one[:n].std() and other[:n].std():
      correlation = np.corrcoef(one[:n], other[:n])[0, 1]
      assert abs(correlation) < 5 / np.sqrt(n), f'{name} and {other_name}: {correlation:.2f}'


@pytest.mark.parametrize('changes', VARIANTS.values(), ids=VARIANTS)
def test_no_two_weights_of_a_fresh_model_are_correlated(changes):
  with mesh_of():
    found = weights(language_model(jax.random.key(0), tiny_config(**changes)))
  assert len(found) >= 4
  assert_uncorrelated(found)


@pytest.mark.parametrize('changes', FINETUNE.values(), ids=FINETUNE)
def test_what_fine_tuning_adds_is_not_correlated_with_a_model_drawn_from_the_same_seed(changes):
  config = config_of(**changes)
  with mesh_of():
    model = Classifier(jax.random.key(0), config, 'classification', 2)
    added = {f'added {name}': value for name, value in weights(model).items()}
    assert_uncorrelated(added | weights(language_model(jax.random.key(0), config)))


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('name', few(VARIANTS))
def test_pretraining_uses_each_key_once(name):
  """Fresh weights, the dropout of some steps, and a sample at the end."""
  config, uses = tiny_config(**VARIANTS[name], **{'model.dropout': 0.1, 'model.scan': False,
                                           'train.batch_size': 4}), Uses()
  seed, tokens = config.train.seed, np.zeros((4, 24), np.int32)
  choice = sampling.SamplingOptions(1.0, None, None, 61)
  features = lambda model, step: unrolled(model).features(tokens, train.dropout_keys(config, step))
  draw = lambda rows, count: sampling.sample_tokens(jnp.zeros((2, 64)), attention.fold_in(rows, count),
                                                    choice)
  with mesh_of():
    make = lambda: language_model(jax.random.key(seed), config)
    uses.of(lambda: nnx.state(make()))
    model, rows = make(), sampling.row_keys(np.uint32(seed), np.uint32([zlib.crc32(b'a'), zlib.crc32(b'b')]),
                                           np.int32([0, 0]))
    for step in range(STEPS):
      uses.of(features, model, np.int32(step))
      uses.of(draw, rows, np.int32(step))
  uses.check()


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('name', few(FINETUNE))
def test_fine_tuning_uses_each_key_once(name):
  """Fresh weights, and the dropout of some steps; layers unrolled, as no keys of a loop are seen."""
  config, uses = config_of(**FINETUNE[name], **{'model.dropout': 0.1, 'finetune.head_dropout': 0.1,
                                         'model.scan': False, 'train.batch_size': 4}), Uses()
  batch = {'tokens': np.zeros((4, 2, 24), np.int32), 'lengths': np.full((4, 2), 24, np.int32)}

  def scores(model, step):
    model = copied(model)
    model.lm = unrolled(model.lm)
    keys = train.sequence_keys(config.train, config.train.seed, step)
    return model(batch['tokens'], batch['lengths'], keys)

  with mesh_of() as mesh:
    batch = sharding.shard_batch(batch, mesh)
    make = lambda: Classifier(jax.random.key(config.train.seed), config, 'choice', 1)
    uses.of(lambda: nnx.state(make()))
    model = make()
    for step in range(STEPS):
      uses.of(scores, model, np.int32(step))
  uses.check()


def test_a_named_branch_is_none_of_a_split():
  key = jax.random.key(3)
  split = {tuple(words) for words in np.asarray(jax.random.key_data(jax.random.split(key, 1000))).tolist()}
  names = [tuple(np.asarray(jax.random.key_data(keys.named(key, name))).tolist())
           for name in ('dropout', 'lm_head', 'clf', 'lora')]
  assert len(set(names)) == 4 and not split & set(names)
