"""Log-likelihoods of tokens under a model: one implementation for every task that compares or sums them.

Letters: b rows, t tokens of the longest row, k positions that are scored, n = b k of them, d model width,
v vocabulary, c a block of it.

A request is a sequence of tokens of which the last ones are scored. Requests are sorted by length and run in
batches of a few shapes, so that few programs are compiled and little is padding; shorter requests are in
larger batches. Logits are computed only at scored positions, for one block of the vocabulary at a time.
Requests in a batch are independent, so a score does not depend on the other requests, the batch size, the
order, or the number of devices and hosts; sums are computed on the host, in double precision.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.command import bars
from gptjax.config import resolve
from gptjax.errors import InputError
from gptjax.generate import kv_cache
from gptjax.kernels import cpu_forms, cpu_matmul
from gptjax.model.compute import in_dtype
from gptjax.model.gpt import GPT
from gptjax.model.layers import soft_capped
from gptjax.model.parameters import gathered
from gptjax.parallel import sharding
from gptjax.parallel.sharding import flatten_batch as as_rows

MAX_LOGITS = 1 << 24, 1 << 21  # on a device at one time; on a CPU, as many as fit into its caches
NO_TOKEN = float(1 << 24)  # beyond any vocabulary; float32 is exact up to here, and compares faster
LOWEST_LOGIT = -1e30       # finite replacement for the maximum of a block that has only padding
SCORED_LENGTHS = (8, 64)   # sizes of k below t
MIN_LENGTH = 32            # tokens of the shortest rows


class Request(NamedTuple):
  """Tokens of a text; those from `start` on are scored, given all tokens before them.

  ids: sequence of int, at most n_ctx + 1 of them.
  start: int, at least 1 and less than their number.
  """
  ids: Sequence
  start: int


class Score(NamedTuple):
  """The log-likelihood of a request.

  log_prob: sum of log p over the scored tokens, nats.
  last_log_prob: log p of the last token.
  is_greedy: whether each scored token is the most likely one after the tokens before it.
  last_is_greedy: whether the last token is.
  is_greedy_allowed: as `is_greedy`, with excluded tokens ignored as competitors.
  """
  log_prob: float
  last_log_prob: float
  is_greedy: bool
  last_is_greedy: bool
  is_greedy_allowed: bool


class ExcludedTokens(NamedTuple):
  """Tokens that `Score.is_greedy_allowed` ignores as competitors of the scored token.

  masks: bool[m, n_vocab], sets of tokens.
  mask_indices: for each request int[n], the set that is excluded at each of its scored tokens.
  """
  masks: np.ndarray
  mask_indices: list


def matmul_precision(compute_dtype):
  """Return the context manager under which a model of this dtype, a string, is evaluated.

  By default a GPU multiplies float32 matrices in TF32, with a mantissa of 10 bits, so that scores depend on
  the shapes of batches.
  """
  return jax.default_matmul_precision('highest' if compute_dtype == 'float32' else None)


def prepare_model(model):
  """Return the model with its weights cast to its compute dtype.

  Layers stay stacked, which compiles fast, except on a CPU, where slicing the stack would take a tenth of the
  time.
  """
  if isinstance(model, GPT) and jax.default_backend() == 'cpu':
    return kv_cache.prepare_for_decoding(model)
  return model if model.dtype == 'float32' else jax.jit(in_dtype, static_argnums=1)(model, model.dtype)


def score_requests(model, requests, batch_size, *, excluded=None, make_result=None, known=(),
                   on_score=lambda i, score: None,
                   after_batch=lambda: None, name='score', show_progress=False):
  """Return [Score of each request].

  Args:
    model: GPT from `prepare_model`, under `jax.set_mesh`.
    requests: list of Request.
    batch_size: rows of n_ctx tokens per batch, over all devices, see `rows_per_batch`.
    excluded: ExcludedTokens, or None.
    make_result: function of (float32[n] log p of the scored tokens, bool[n] whether each is the most likely,
      bool[n] whether it is when excluded tokens are ignored) that returns the result of a request; None: a
      Score.
    known: {index of a request: Score} of requests that need not be run.
    on_score: function called with the index and Score of each request once it is computed.
    after_batch: function called after each batch.
    name: of the progress bar.
    show_progress: whether to show a progress bar.

  Raises:
    ValueError: a request is longer than the context or has no token to score, or logits are NaN.
  """
  for request in requests:
    if not 1 <= request.start < len(request.ids) <= model.n_ctx + 1:
      raise ValueError(f'{len(request.ids) - request.start} of {len(request.ids)} tokens cannot be scored in '
                       f'a context of {model.n_ctx}')
  scores, make_result = dict(known), make_result or _score
  remaining = [i for i in range(len(requests)) if i not in scores]
  shards = sharding.batch_shards(jax.sharding.get_abstract_mesh())
  pending, masks = [], None if excluded is None else jnp.asarray(excluded.masks)
  with bars.bar(shown=show_progress, total=len(requests), initial=len(scores), desc=name, unit='sequence',
                leave=False) as bar:
    def finish():
      indices, targets, results = pending.pop(0)
      for i, is_scored, *values in zip(indices, targets >= 0, *jax.device_get(results)):
        require_numbers(values[0][is_scored])
        scores[i] = make_result(*(value[is_scored] for value in values))
        on_score(i, scores[i])
      bar.update(len(indices))
      after_batch()

    batches = make_batches(requests, remaining, model.n_ctx, batch_size, shards)
    for indices, tokens, starts, targets in batches:
      mask_indices = None
      if excluded is not None:
        mask_indices = np.zeros_like(targets)
        mask_indices[targets >= 0] = np.concatenate([excluded.mask_indices[i] for i in indices])
      pending.append((indices, targets, score_rows(model, tokens, starts, targets, masks, mask_indices)))
      if len(pending) > 1:  # the device computes one batch while the host reads the previous one
        finish()
    while pending:
      finish()
  return [scores[i] for i in range(len(requests))]


def make_batches(requests, remaining, n_ctx, batch_size, shards):
  """Yield (indices of requests, their tokens, starts and targets as from `make_batch`), the longest first.

  Args:
    requests: list of Request.
    remaining: indices of those to run.
    n_ctx, batch_size, shards: see `rows_per_batch`.
  """
  key = lambda i: (-len(requests[i].ids), requests[i].start - len(requests[i].ids))
  remaining = sorted(remaining, key=key)
  begin, max_rows = 0, rows_per_batch(MIN_LENGTH, n_ctx, batch_size, shards)
  while begin < len(remaining):
    tokens, starts, targets, n = make_batch([requests[i] for i in remaining[begin:begin + max_rows]], n_ctx,
                                            batch_size, shards)
    yield remaining[begin:begin + n], tokens, starts, targets
    begin += n


def make_batch(requests, n_ctx, batch_size, shards):
  """Pack the first of `requests`, sorted by length with the longest first, into arrays of a common shape.

  Returns:
    (int32[b, t] tokens; int32[b] first scored position of each row; int32[b, k] target tokens from there on,
    -1: none; number of requests in the batch). The remaining rows score nothing.
  """
  t = padded_length(len(requests[0].ids) - 1, n_ctx)
  max_rows = rows_per_batch(t, n_ctx, batch_size, shards)
  requests = requests[:max_rows]
  b = min(max_rows, shards << (-(-len(requests) // shards) - 1).bit_length())
  longest = max(len(request.ids) - request.start for request in requests)
  k = next((size for size in SCORED_LENGTHS if longest <= size < t), t)
  tokens, targets = np.zeros((b, t), np.int32), np.full((b, k), -1, np.int32)
  starts = np.zeros(b, np.int32)
  for row, (ids, start) in enumerate(requests):
    tokens[row, :len(ids) - 1] = ids[:-1]
    starts[row] = 0 if k == t else start - 1
    first = start - 1 - starts[row]
    targets[row, first:first + len(ids) - start] = ids[start:]
  return tokens, starts, targets, len(requests)


def rows_per_batch(t, n_ctx, batch_size, shards):
  """Rows of t tokens with about the work of batch_size rows of n_ctx; a multiple of the number of devices.

  Texts are rarely as long as a long context: of n_ctx no more counts than keeps a device busy.
  """
  n_ctx = min(n_ctx, resolve.evaluation_tokens(jax.default_backend()))
  return shards * max(1, batch_size * n_ctx // (t * shards))


def padded_length(n, n_ctx):
  """The smallest padded length, of four per octave, that is at least n; at most n_ctx."""
  octave = max(0, (-(-n // MIN_LENGTH) - 1).bit_length() - 1)
  step = max(8, (MIN_LENGTH << octave) // 4)
  return min(max(MIN_LENGTH, -(-n // step) * step), n_ctx)


def require_numbers(log_probs):
  if np.isnan(log_probs).any():
    raise InputError('the logits are not numbers: the weights of the model are damaged')


def _score(log_probs, is_greedy, is_greedy_allowed):
  return Score(float(log_probs.sum(dtype=np.float64)), float(log_probs[-1]), bool(is_greedy.all()),
               bool(is_greedy[-1]), bool(is_greedy_allowed.all()))


@jax.jit
def score_rows(model, tokens, starts, targets, masks, mask_indices):
  """Log probabilities of tokens.

  Args:
    model: GPT from `prepare_model`, under `jax.set_mesh`.
    tokens: int32[b, t].
    starts: int32[b], the position in each row that predicts its first target.
    targets: int32[b, k], the tokens from there on; negative: not scored.
    masks: bool[m, n_vocab] or None, see `ExcludedTokens`.
    mask_indices: int32[b, k] or None, the excluded mask at each target.

  Returns:
    (float32[b, k] log p in nats; bool[b, k] whether the target is the most likely token, the first of equals;
    bool[b, k] whether it is when excluded tokens are ignored).
  """
  place_on_mesh = lambda x: jax.reshard(x, sharding.compute_spec('batch', None))
  tokens, targets = place_on_mesh(tokens), place_on_mesh(targets)
  x, k = model.features(tokens), targets.shape[1]
  if k < x.shape[1]:
    first = jax.reshard(starts, sharding.compute_spec('batch'))[:, None]
    positions = jnp.minimum(first + jnp.arange(k), x.shape[1] - 1)
    take = lambda row, positions: row.at[positions].get(out_sharding=jax.P(None, None))
    x = jax.vmap(take)(x, positions)
  mask_indices = None if masks is None else as_rows(place_on_mesh(mask_indices))
  outputs = compare_logits(as_rows(x), model, as_rows(targets), masks, mask_indices)
  return tuple(jax.reshard(sharding.split_axis(a, 0, targets.shape), jax.P()) for a in outputs)


def compare_logits(x, model, target, masks=None, mask_indices=None):
  """`score_rows` for features x [n, d], targets and mask indices [n], one vocabulary block [c] at a time."""
  table, n_vocab = gathered(model.unembedding), model.n_vocab
  target = jnp.maximum(target, 0).astype(jnp.float32)
  column = jnp.arange(len(table), dtype=jnp.float32, out_sharding=sharding.compute_spec('vocab'))
  column = jnp.where(column < n_vocab, column, NO_TOKEN)
  excluded = None
  if masks is not None:
    excluded = jnp.pad(masks.T, ((0, len(table) - n_vocab), (0, 0)))
    excluded = jax.reshard(excluded, sharding.compute_spec('vocab', None))
    one_hot = (mask_indices[:, None] == jnp.arange(len(masks))).astype(jnp.float32)

  def block(rows, column, excluded):
    logits = cpu_matmul.matmul_by_rows(x.astype(table.dtype), cpu_forms.from_bits(rows, table.dtype))
    logits = jnp.where(column < NO_TOKEN, soft_capped(logits, model.soft_cap), -jnp.inf)
    maximum, _ = most_likely = _max_and_column(logits, column)
    total = jnp.exp(logits - jnp.maximum(maximum, LOWEST_LOGIT)[:, None]).sum(-1)
    target_logit = _at_column(logits, column, target)
    if excluded is None:
      return maximum, total, target_logit, most_likely, most_likely
    # A matmul and not a gather, because it is sharded over devices as the logits are.
    is_excluded = jnp.einsum('nm,cm->nc', one_hot, excluded.astype(jnp.float32)) > 0.5
    is_excluded &= column != target[:, None]
    allowed = jnp.where(is_excluded, -jnp.inf, logits)
    return maximum, total, target_logit, most_likely, _max_and_column(allowed, column)

  devices, on_cpu = sharding.batch_shards(jax.sharding.get_abstract_mesh()), jax.default_backend() == 'cpu'
  split_vocabulary = functools.partial(sharding.split_into_blocks,
                                       size=max(1, MAX_LOGITS[on_cpu] * devices // len(x)))
  blocks = (split_vocabulary(cpu_forms.as_bits(table)), split_vocabulary(column, value=NO_TOKEN),
            None if excluded is None else split_vocabulary(excluded, value=False))
  maximum, total, target_logit, *winners = jax.lax.map(lambda arrays: block(*arrays), blocks)
  sums = (total * jnp.exp(maximum - maximum.max(0))).sum(0)
  is_most_likely = [jnp.where(maximum == maximum.max(0), first, NO_TOKEN).min(0) == target
                  for maximum, first in winners]
  return target_logit.max(0) - maximum.max(0) - jnp.log(sums), *is_most_likely


def _at_column(logits, column, target):
  """The logit of [n, c] at the column of each target [n]; -inf where it is in no column."""
  if not cpu_matmul.on_one_cpu():  # a dimension that is sharded cannot be indexed
    return jnp.where(column == target[:, None], logits, -jnp.inf).max(-1)
  logits, column, target = jax.reshard((logits, column, target), jax.P())
  at = (target - column[0]).astype(jnp.int32)
  found = jnp.take_along_axis(logits, jnp.clip(at, 0, len(column) - 1)[:, None], 1, mode='promise_in_bounds')
  return jnp.where((at >= 0) & (at < len(column)), found[:, 0], -jnp.inf)


def _max_and_column(logits, column):
  """The maximum of logits [n, c] and the first column that has it; twice as fast as argmax on a CPU."""
  maximum = logits.max(-1)
  return maximum, jnp.where(logits == maximum[:, None], column, NO_TOKEN).min(-1)
