"""Log-likelihoods of texts that begin with the same tokens, which are computed once.

Letters: b rows, t tokens of the longest row, k scored tokens, d model width.

A group is a list of requests, for example the prompts of one question, each with another answer. Those that
share a prefix are packed into one row: first the prefix, then the rest of each request.

    tokens      a b c d | e f | g h i
    segments    0 0 0 0   1 1   2 2 2
    positions   0 1 2 3   4 5   4 5 6

A token attends to the prefix and to its own segment, and has the position that it has in its request, so the
scores are those of the requests one by one (`gptjax.model.attention.shared_prefix_attention`).
"""

from typing import NamedTuple

import jax
import numpy as np

from gptjax.command import bars
from gptjax.evaluate.scoring import scores
from gptjax.evaluate.scoring.evaluated_model import arrays_digest, common_prefix
from gptjax.evaluate.texts.sources import NotRun
from gptjax.model.attention import shared_prefix_attention
from gptjax.model.gpt import GPT
from gptjax.parallel import sharding

MIN_SHARED = 0.25  # of each of the requests in a row is their common prefix


class Span(NamedTuple):
  """The score of the tokens of a request from its `start` on.

  log_prob: sum of their log p, nats.
  n: their number, which may be 0.
  is_greedy: whether each of them is the most likely one after the tokens before it.
  """
  log_prob: float
  n: int
  is_greedy: bool


class Pack(NamedTuple):
  """Requests of a group in one row.

  group: index of the group.
  tokens, positions, segments: int32[t], see above.
  places: int32[k], for each scored token the index in the row from which it is predicted.
  targets: int32[k], the scored tokens.
  spans: {index of a request in its group: slice of `places`}.
  """
  group: int
  tokens: np.ndarray
  positions: np.ndarray
  segments: np.ndarray
  places: np.ndarray
  targets: np.ndarray
  spans: dict


def score_groups(evaluated, name, groups):
  """Return [[Span of each request] of each group].

  Groups that the journal has under this name are not computed again.

  Args:
    evaluated: evaluated_model.EvaluatedModel.
    name: of this part of the journal.
    groups: lists of `scores.Request` of at most n_ctx + 1 tokens; `start` may be their number.

  Raises:
    NotRun: the model is not a Transformer.
    InputError: logits are NaN.
  """
  if not isinstance(evaluated.model, GPT):
    raise NotRun('this task scores several answers after one prefix, which needs a Transformer, not an LSTM')
  part = evaluated.journal_part(name, [
    arrays_digest([np.append(ids, start) for ids, start in group]) for group in groups])
  found = {i: {j: Span(*span) for j, span in enumerate(answer)} for i, answer in part.known.items()}
  n_ctx = evaluated.model.n_ctx
  packs = [pack for i, group in enumerate(groups) if i not in found for pack in pack_group(i, group)]
  packs.sort(key=lambda pack: (-padded_length(len(pack.tokens), n_ctx), -len(pack.tokens), -len(pack.places)))
  with bars.bar(shown=evaluated.show_progress, total=len(groups), initial=len(found), desc=name,
                unit='example', leave=False) as bar:
    for pack, log_probs, is_greedy in score_packs(evaluated, packs):
      spans = found.setdefault(pack.group, {})
      for j, place in pack.spans.items():
        spans[j] = Span(float(log_probs[place].sum(dtype=np.float64)), place.stop - place.start,
                        bool(is_greedy[place].all()))
      if len(spans) == len(groups[pack.group]):
        part.record(pack.group, [spans[j] for j in range(len(spans))])
        bar.update(1)
  return [[found[i][j] for j in range(len(group))] for i, group in enumerate(groups)]


def pack_group(number, group):
  """Return [Pack] of the requests of a group; those with a short common prefix have rows of their own."""
  rows = []  # [[index of a request, ...], length of their common prefix]
  for j, (ids, _) in enumerate(group):
    for row in rows:
      shared = min(row[1], common_prefix(group[row[0][0]].ids[:-1], ids[:-1]))
      if shared >= MIN_SHARED * max(len(group[i].ids) for i in (*row[0], j)):
        row[0].append(j)
        row[1] = shared
        break
    else:
      rows.append([[j], len(ids) - 1])
  return [_pack(number, group, indices, shared) for indices, shared in rows]


def _pack(number, group, indices, shared):
  tokens, positions = [np.asarray(group[indices[0]].ids[:shared])], [np.arange(shared)]
  segments, places, targets, spans, n, k = [np.zeros(shared, int)], [], [], {}, shared, 0
  for segment, j in enumerate(indices, 1):
    ids, start = np.asarray(group[j].ids), group[j].start
    rest = ids[shared:-1]
    tokens.append(rest)
    positions.append(shared + np.arange(len(rest)))
    segments.append(np.full(len(rest), segment))
    before = np.arange(start, len(ids)) - 1  # the index, in the request, that predicts each scored token
    places.append(np.where(before < shared, before, n + before - shared))
    targets.append(ids[start:])
    spans[j] = slice(k, k + len(ids) - start)
    n, k = n + len(rest), k + len(ids) - start
  joined = lambda arrays: np.concatenate(arrays).astype(np.int32)
  return Pack(number, *map(joined, (tokens, positions, segments, places, targets)), spans)


def score_packs(evaluated, packs):
  """Yield (Pack, float32[k] log p, bool[k] whether each scored token is the most likely) of sorted packs."""
  model, batch_size, pending, begin = evaluated.model, evaluated.batch_size, [], 0
  shards = sharding.batch_shards(jax.sharding.get_abstract_mesh())
  most = scores.rows_per_batch(scores.MIN_LENGTH, model.n_ctx, batch_size, shards)
  while begin < len(packs) or pending:
    if begin < len(packs):
      arrays, n = make_batch(packs[begin:begin + most], model.n_ctx, batch_size, shards)
      pending.append((packs[begin:begin + n], score_rows(model, *arrays)))
      begin += n
    if len(pending) > 1 or begin == len(packs):  # the device computes one batch while the host reads another
      batch, results = pending.pop(0)
      for pack, log_probs, is_greedy in zip(batch, *jax.device_get(results), strict=False):
        k = len(pack.targets)
        scores.require_numbers(log_probs[:k])
        yield pack, log_probs[:k], is_greedy[:k]
      evaluated.after_batch()


def make_batch(packs, n_ctx, batch_size, shards):
  """Return ((tokens, positions, segments, places, targets) of `score_rows`, number of packs in the batch)."""
  t = padded_length(len(packs[0].tokens), n_ctx)
  max_rows = scores.rows_per_batch(t, n_ctx, batch_size, shards)
  packs = packs[:max_rows]
  b = min(max_rows, shards << (-(-len(packs) // shards) - 1).bit_length())
  k = 8
  while k < max(len(pack.places) for pack in packs):
    k *= 2
  arrays = [np.zeros((b, size), np.int32) for size in (t, t, t, k, k)]
  for row, pack in enumerate(packs):
    for array, values in zip(arrays, pack[1:6], strict=True):
      array[row, :len(values)] = values
  return arrays, len(packs)


def padded_length(n, n_ctx):
  """The padded length of a row, which may be longer than the context."""
  return scores.padded_length(n, n_ctx if n <= n_ctx else 2 * n)


def score_rows(model, tokens, positions, segments, places, targets):
  """Log probabilities of tokens in packed rows.

  Args:
    model: GPT from `scores.prepare_model`, under `jax.set_mesh`.
    tokens, positions, segments: int32[b, t], see `Pack`.
    places, targets: int32[b, k].

  Returns:
    (float32[b, k] log p in nats; bool[b, k] whether the target is the most likely token, the first of
    equals).
  """
  return _compare(model, _features(model, tokens, positions, segments), places, targets)


@jax.jit
def _features(model, tokens, positions, segments):
  tokens, positions, segments = map(_on_mesh, (tokens, positions, segments))
  attend = lambda q, k, v, **dropout: shared_prefix_attention(q, k, v, segments, positions, model.window)
  return model.features(tokens, positions=positions, attends=attend)


@jax.jit  # apart from the features, so that these are not compiled for each number of scored tokens
def _compare(model, x, places, targets):
  take = lambda row, places: row.at[places].get(out_sharding=jax.P(None, None))
  x = sharding.flatten_batch(jax.vmap(take)(x, _on_mesh(places)))
  log_probs, is_greedy, _ = scores.compare_logits(x, model, sharding.flatten_batch(_on_mesh(targets)))
  return tuple(jax.reshard(sharding.split_axis(a, 0, targets.shape), jax.P()) for a in (log_probs, is_greedy))


def _on_mesh(x):
  return jax.reshard(x, sharding.compute_spec('batch', None))
