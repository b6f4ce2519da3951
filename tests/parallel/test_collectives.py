"""What the compiled train step sends between devices: as much as the method needs, and no more."""

import functools
import json
import subprocess
import sys
from unittest import mock

import jax
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of, random_batch, tiny_config
from finetune.tiny import batch_of, config_of, finetune_state

from gptjax.finetune import step
from gptjax.parallel import sharding
from gptjax.plan import hlo, program
from gptjax.train import step as train

SCALARS = 64  # bytes: norms and losses; what is below is no array of the model
BATCH = {'train.batch_size': 32, 'train.microbatch_size': 32, 'model.n_layer': 3, 'loss.chunk': 0}


@functools.cache
def sent(mesh, changes):
  """[hlo.Collective] of arrays, not scalars, in an accelerator's step on this mesh; pairs both."""
  config = tiny_config(**{**BATCH, **dict(changes)})
  with mock.patch.object(sharding, 'ONE_CHANNEL', ()), mesh_of(**dict(mesh)) as on:
    text = program.compile_step(config, on).as_text()
  kept = [one._replace(sizes=[size for size in one.sizes if size > SCALARS]) for one in hlo.collectives(text)]
  return [one for one in kept if one.sizes]


def weights(changes=()):
  """{name: float32 bytes} of the padded model."""
  config = tiny_config(**{**BATCH, **dict(changes)})
  with mesh_of():
    shapes = jax.eval_shape(functools.partial(train.init_state, config)).params
  return {jax.tree_util.keystr(path, simple=True, separator='/'): 4 * leaf.size
          for path, leaf in jax.tree.flatten_with_path(shapes)[0]}


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('parts', [1, 4])
@pytest.mark.parametrize('mesh', ['data', 'replica'])
def test_data_parallel_sums_its_gradients_once_a_step(mesh, parts):
  found = sent(((mesh, 8),), (('train.microbatch_size', 32 // parts),))
  assert {one.kind for one in found} == {'all-reduce'} and all(one.depth == 0 for one in found)
  assert sum(size for one in found for size in one.sizes) == sum(weights().values())


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('remat, gatherings', [('none', 1), ('full', 2)])
def test_fully_sharded_gathers_a_layer_once_each_way_and_scatters_its_gradient_once(remat, gatherings):
  found = sent((('fsdp', 8),), (('model.remat', remat),))
  matrices = sum(size for name, size in weights().items() if name.endswith('/w'))
  tables = sum(size for name, size in weights().items() if name in ('wte', 'wpe'))
  gathered = [one for one in found if one.kind == 'all-gather']
  assert sum(one.runs * sum(one.sizes) for one in gathered if one.depth) == gatherings * matrices
  assert sum(sum(one.sizes) for one in gathered if not one.depth) == tables
  moved = hlo.by_kind(found)
  assert moved['reduce-scatter'] == (matrices + tables) // 8  # what each device is left with
  assert moved['all-reduce'] == sum(weights().values()) - matrices - tables  # gains and biases are whole
  assert moved.keys() == {'all-gather', 'all-reduce', 'reduce-scatter'}


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('heads, reductions', [(4, 2), (5, 1)])
def test_tensor_parallel_has_two_reductions_a_layer_each_way(heads, reductions):
  """With heads that the mesh cannot divide, attention is whole and only the MLP has one."""
  changes = (('model.n_head', heads), ('model.n_embd', 8 * heads))
  found = sent((('tensor', 4),), changes)
  activations = 4 * 32 * 24 * 8 * heads  # float32[b, t, d]
  assert {one.kind for one in found} == {'all-reduce'}
  in_layers = [one for one in found if one.runs == 3]
  assert sum(one.runs * len(one.sizes) for one in in_layers) == 3 * reductions * 2
  assert all(size == activations for one in in_layers for size in one.sizes)


def test_slow_axes_carry_gradients_alone():
  """On replica x fsdp, gradients are summed within fsdp in the loop, and over replica once after it."""
  found = sent((('replica', 2), ('fsdp', 4)), (('train.microbatch_size', 8),))
  late = [one for one in found if one.kind == 'all-reduce' and not one.depth]
  sharded = {name: size for name, size in weights().items() if name.endswith('/w') or name in ('wte', 'wpe')}
  whole = sum(weights().values()) - sum(sharded.values())
  assert sum(size for one in late for size in one.sizes) == sum(sharded.values()) // 4 + whole


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('sizes', [dict(fsdp=4, tensor=2), dict(data=2, fsdp=2, tensor=2),
                                   dict(replica=2, fsdp=2, tensor=2)], ids=str)
def test_on_products_of_axes_weights_alone_are_gathered_and_nothing_is_moved_by_accident(sizes):
  """With 5 heads on a tensor axis of 2, as GPT-2 XL's 25 are."""
  changes = (('model.n_head', 5), ('model.n_embd', 40))
  found = sent(tuple(sizes.items()), changes)
  assert {one.kind for one in found} <= {'all-gather', 'all-reduce', 'reduce-scatter'}
  gathered = sum(one.runs * sum(one.sizes) for one in found if one.kind == 'all-gather')
  assert gathered == sum(size // (sizes['tensor'] if name == 'wte' or '/mlp/' in name else 1)
                         for name, size in weights(changes).items()
                         if name.endswith('/w') or name in ('wte', 'wpe'))


@pytest.mark.ci
def test_no_array_is_copied_whole_because_its_sharding_is_lost():
  meshes = [({'tensor': 4}, {}), ({'data': 2, 'fsdp': 4}, {}),
            ({'fsdp': 4, 'tensor': 2}, {'model.n_head': 5, 'model.n_embd': 40, 'model.remat': 'full'}),
            ({'replica': 2, 'fsdp': 2, 'tensor': 2}, {'train.microbatch_size': 4})]
  environment = {**ENVIRONMENT, 'TF_CPP_MIN_LOG_LEVEL': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}
  process = subprocess.run([sys.executable, 'tests/parallel/partition_process.py', json.dumps(meshes)],
                           cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
  badly, ours = process.stderr.split('meshes\n')
  assert 'full rematerialization' in badly and 'full rematerialization' not in ours


def late_sums(jaxpr):
  """[dtype] of all arrays of which partial sums over `replica` and `data` are added up."""
  late, found = set(sharding.DEFERRED_AXES), []
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'reshard':
      before, after = equation.invars[0].aval, equation.outvars[0].aval
      if (before.sharding.spec.unreduced - after.sharding.spec.unreduced) & late:
        found.append(str(before.dtype))
    for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      found += late_sums(inner) if hasattr(inner, 'eqns') else []
  return found


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('parts', [1, 2])
@pytest.mark.parametrize('job', ['pretrain', 'finetune'])
@pytest.mark.parametrize('mesh', [dict(data=4), dict(replica=2, fsdp=2)], ids=str)
def test_gradients_are_summed_over_devices_in_float32(mesh, job, parts):
  """Also where the model computes in bfloat16, with one microbatch as with several."""
  changes = {'model.compute_dtype': 'bfloat16', 'train.microbatch_size': 8 // parts, 'train.batch_size': 8}
  with mesh_of(**mesh) as on:
    if job == 'pretrain':
      config = tiny_config(**changes)
      params = train.init_state(config).params
      run = functools.partial(train.loss_and_grads, config=config, graphdef=train.graph(config))
      arguments = params, sharding.shard_batch(random_batch(config), on), None
    else:
      config = config_of(**changes)
      state = finetune_state(config, 'choice', 1)
      run = functools.partial(step.loss_and_grads, config=config, graphdef=step.graph(config, 'choice', 1),
                              is_regression=False)
      params, arguments = state.params, (state, sharding.shard_batch(batch_of(config, 2), on), None)
    traced, grads = jax.make_jaxpr(run, return_shape=True)(*arguments)
    found = late_sums(traced.jaxpr)
  assert len(found) >= len(jax.tree.leaves(params)) and set(found) == {'float32'}
  assert {str(g.dtype) for g in jax.tree.leaves(grads[1])} == {'float32'}
