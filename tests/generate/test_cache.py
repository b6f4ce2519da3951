"""The cached forward pass against the one without a cache, and what is compiled for it."""

import re

import jax
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from flax import nnx

from gptjax.generate import kv_cache
from gptjax.generate.sampling import SamplingOptions, row_keys
from gptjax.model.gpt import GPT

GREEDY = SamplingOptions(None, None, None, 61)


def made(**changes):
  """A model whose every weight matters."""
  config = tiny_config(**changes)
  model = jax.jit(lambda: GPT(jax.random.key(0), config))()
  graph, params = nnx.split(model)
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape, out_sharding=jax.typeof(leaf).sharding.spec)
           for key, leaf in zip(keys, leaves)]
  return nnx.merge(graph, tree.unflatten(noisy))


def prompts_of(*lengths):
  rng = np.random.default_rng(0)
  return [rng.integers(0, 61, length).tolist() for length in lengths]


def written(model, prompts, n, choice=GREEDY, end=-1, parts=None):
  """[n tokens of each prompt], written in parts of so many."""
  tokens, lengths, slots = kv_cache.pad_prompts(prompts, n, model.n_ctx)
  b = len(tokens)
  keys = row_keys(np.uint32(0), np.zeros(b, np.uint32), np.arange(b, dtype=np.int32))
  logits, cache = kv_cache.prefill(model, tokens, lengths, slots)
  out = [np.asarray(kv_cache.sample_first(logits, keys, lengths, choice))[:, None]]
  counts, done = lengths, np.arange(b) >= len(prompts)
  for part in parts or [n - 1]:
    counts = counts + out[-1].shape[1]
    new, count, cache = kv_cache.decode(model, cache, out[-1][:, -1], done, np.int32(part), keys, counts,
                                        choice, np.array([end], np.int32))
    out.append(np.asarray(new)[:, :int(count)])
  return np.concatenate(out, 1)[:len(prompts)]


CHANGES = [{'model.norm': 'after'},
           {'model.n_inner': 48, 'model.tie_word_embeddings': False, 'model.scale_attn_weights': False,
            'model.scale_attn_by_inverse_layer_idx': True, 'model.activation_function': 'relu'}]


@pytest.mark.ci
@pytest.mark.parametrize('changes', CHANGES)
def test_logits_with_the_cache_are_those_without(changes):
  with mesh_of():
    model = made(**changes)
    tokens = prompts_of(20)[0]
    want = np.asarray(model(np.array([tokens], np.int32)))[0]
    ready = kv_cache.prepare_for_decoding(model)
    np.testing.assert_allclose(ready(np.array([tokens], np.int32))[0], want, atol=1e-5)
    for first in (1, 7):
      padded, lengths, slots = kv_cache.pad_prompts([tokens[:first]], 20 - first, model.n_ctx)
      logits, cache = kv_cache.prefill(ready, padded, lengths, slots)
      np.testing.assert_allclose(logits[0], want[first - 1], atol=1e-5)
      for i in range(first, 20):
        logits, cache = jax.jit(kv_cache._decode_one)(ready, cache, np.array(tokens[i:i + 1], np.int32))
        np.testing.assert_allclose(logits[0], want[i], atol=1e-5)


@pytest.mark.parametrize('b', [1, 3])
def test_a_cpu_moves_neither_weights_nor_the_cache_for_a_token_in_bfloat16(b):
  # XLA once converted the whole cache twice for each token, and transposed the output matrix in each call.
  with mesh_of():
    model = made(**{'model.compute_dtype': 'bfloat16', 'model.n_embd': 64, 'model.n_ctx': 128,
                    'model.n_vocab': 509})
    ready = kv_cache.prepare_for_decoding(model)
    tokens, lengths, slots = kv_cache.pad_prompts(prompts_of(*[9] * b), 100, model.n_ctx)
    b = len(tokens)
    keys = row_keys(np.uint32(0), np.zeros(b, np.uint32), np.arange(b, dtype=np.int32))
    _, cache = kv_cache.prefill(ready, tokens, lengths, slots)
    assert {layer.dtype.name for layer in cache.keys + cache.values} == {'float32'}
    last, done, end = lengths, np.zeros(b, bool), np.array([-1], np.int32)
    programs = [kv_cache.prefill.lower(ready, tokens, lengths, slots),
                kv_cache.decode.lower(ready, cache, last, done, np.int32(9), keys, lengths, GREEDY, end)]
  large = [sorted(array.shape) for array in (ready.lm_head, cache.keys[0])]
  for program in programs:
    moved = re.findall(r'= \w+\[([\d,]+)\]\S* (?:convert|copy|transpose)\(', program.compile().as_text())
    assert moved and not [shape for shape in moved if sorted(map(int, shape.split(','))) in large]


@pytest.mark.ci
def test_rows_of_different_lengths_are_written_as_if_alone_and_in_parts_as_at_once():
  prompts = prompts_of(1, 9, 4)
  for choice in (GREEDY, SamplingOptions(1.0, 20, 0.9, 61)):
    with mesh_of():
      model = kv_cache.prepare_for_decoding(made())
      together = written(model, prompts, 12, choice)
      np.testing.assert_array_equal(written(model, prompts, 12, choice, parts=[1, 3, 7]), together)
      np.testing.assert_array_equal(written(model, prompts[:1], 12, choice)[0], together[0])


@pytest.mark.ci
def test_another_mesh_writes_the_same():
  prompts = prompts_of(2, 9, 4)
  with mesh_of():
    want = written(kv_cache.prepare_for_decoding(made()), prompts, 10)
  with mesh_of(replica=2, fsdp=2, tensor=2):
    np.testing.assert_array_equal(written(kv_cache.prepare_for_decoding(made()), prompts, 10), want)


def test_the_loop_ends_when_every_row_has_drawn_the_end():
  with mesh_of():
    model, prompts = kv_cache.prepare_for_decoding(made()), prompts_of(5)
    tokens = written(model, prompts, 12)[0]
    end = int(tokens[4])
    stopped = written(model, prompts, 12, end=end)[0]
  np.testing.assert_array_equal(stopped, tokens[:list(tokens[1:]).index(end) + 2])


def test_sizes_come_in_few_kinds():
  sizes = set()
  with mesh_of():
    for rows in range(1, 9):
      for length in range(1, 500, 7):
        tokens, lengths, slots = kv_cache.pad_prompts([[1] * length] * rows, 300, 1024)
        assert tokens.shape[1] >= length and slots >= length + 299
        assert lengths[:rows].tolist() == [length] * rows and (lengths[rows:] == 1).all()
        sizes.add((*tokens.shape, slots))
  assert len(sizes) <= 4 * 6
