"""The lists of matmuls, beside the formulas of FLOPs, the batches of scoring and the program of decoding."""

import functools
import math
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gptjax.benchmark import matmuls, sizes
from gptjax.benchmark.matmuls import Matmul
from gptjax.benchmark.subjects import evaluate, generate
from gptjax.config import resolve as configs
from gptjax.data.tokenizers import byte_bpe, loading
from gptjax.evaluate.scoring import scores
from gptjax.generate import kv_cache
from gptjax.model import size
from gptjax.model.attention import N_QUERY_BLOCKS
from gptjax.model.gpt import GPT
from gptjax.parallel import sharding

MODELS = [{}, {'model.n_kv_head': 2, 'model.head_size': 32, 'model.mlp': 'gated', 'model.n_inner': 640},
          {'model.tie_word_embeddings': False, 'model.positions': 'rotary', 'model.n_layer': 3,
           'train.microbatch_size': 4, 'loss.chunk': 64}]


def resolved(changes=None):
  config = sizes.make_config('cpu', 0, changes)
  configs.resolve(config, '')
  return config


def flops(found):
  return sum(matmul.flops for matmul in found)


@pytest.mark.parametrize('changes', MODELS)
def test_the_matmuls_are_those_that_the_model_needs(changes):
  config = resolved(changes)
  c, t, b = config.model, config.data.seq_len, config.train.batch_size
  per_token = size.flops_per_token(c, t)
  equal = lambda matmuls, needed: flops(matmuls) == pytest.approx(b * t * needed, rel=0.005)
  assert equal(matmuls.of_step(config, 1), per_token['palm'])
  # Of n blocks of queries, the first one needs 1 / n of the keys, the last one all of them.
  attention = 2 * (per_token['palm'] - per_token['causal'])
  skipped = attention * (N_QUERY_BLOCKS - 1) / (2 * N_QUERY_BLOCKS)
  assert equal(matmuls.of_step(config), per_token['palm'] - skipped)
  forward = matmuls.of_batch(config, b, t, b * t, max_logits=1 << 20, n_blocks=1)
  assert equal(forward, per_token['palm'] / 3)
  assert Matmul(c.n_vocab // 256, 'mk,nk', 1, b * t, c.n_embd, 256, 'float32', 'float32') in forward


def test_a_window_needs_fewer_keys():
  whole, window = (resolved({'model.sliding_window': n}) for n in (0, 32))
  assert flops(matmuls.of_step(window)) < flops(matmuls.of_step(whole))


@pytest.mark.parametrize('batch', [1, 8])
def test_the_matmuls_of_a_token_are_those_of_decoding(batch):
  config = generate.make_config(generate.TINY, 'float32')
  configs.resolve(config, '')
  with jax.set_mesh(sharding.make_mesh(config.mesh, jax.devices()[:1])):
    model = kv_cache.prepare_for_decoding(GPT(jax.random.key(0), config))
    tokens, lengths, slots = kv_cache.pad_prompts(generate.prompts(config, batch, 16), 64, model.n_ctx)
    _, cache = jax.eval_shape(functools.partial(kv_cache.prefill, slots=slots), model, tokens, lengths)
    needed = matmul_flops(jax.jit(kv_cache._decode_one).lower(model, cache, lengths).as_text())
  attention = 4 * batch * config.model.n_layer * config.model.n_embd * slots  # scores and weighted values
  task = {1: generate.ONE, 8: generate.EIGHT}[batch]
  assert flops(generate.matmuls_of_tasks(config)[task]) == generate.NEW * (needed - attention)


def matmul_flops(text):
  """FLOPs of all dot_generals in the text of a lowered program, each of which is called once."""
  pattern = (r'stablehlo\.dot_general .*?contracting_dims = \[(\d+)\] x \[\d+\].*?'
             r': \(tensor<([\dx]+)x\w+>, .*?\) -> tensor<([\dx]+)x\w+>')
  sizes = lambda shape: [int(number) for number in shape.split('x')]
  found = re.findall(pattern, text)
  assert found and len(found) == text.count('stablehlo.dot_general')
  return sum(2 * sizes(left)[int(summed)] * math.prod(sizes(result)) for summed, left, result in found)


def test_the_matmuls_of_scoring_are_those_of_its_batches(monkeypatch):
  tokenizer = byte_bpe.train_bpe(['some text of words'], 260)
  monkeypatch.setattr(loading, 'load', lambda name: tokenizer)
  config = resolved({'model.n_layer': 1, 'model.n_embd': 64, 'model.n_head': 2, 'model.n_vocab': 300})
  pairs, text = [('some text of', ' words')] * 3, 'some text of words ' * 40
  found = evaluate.matmuls_of_tasks(config, 'own', pairs, text)
  evaluated = SimpleNamespace(model=SimpleNamespace(n_ctx=256), tokenizer=tokenizer)
  for task, needed in found.items():
    requests = evaluate.make_requests(evaluated, pairs, text, task)
    batches = list(scores.make_batches(requests, range(len(requests)), 256, evaluate.BATCH, 1))
    assert sorted(i for indices, *_ in batches for i in indices) == [*range(len(requests))]
    rows = sum(m.count * m.m for m in needed if (m.k, m.n) == (64, 4 * 64))
    assert rows == sum(tokens.size for _, tokens, _, _ in batches)
    logits = sum(m.count * m.m * m.n for m in needed if m.n >= 300)
    assert logits >= sum(np.sum(targets >= 0) for *_, targets in batches) * 300
