"""How likely a model finds tokens after others: one implementation for every task that compares or sums.

Letters: b rows, t tokens of the longest row, k positions that are scored, n = b k of them, d model width,
v vocabulary, c a block of it.

A request is tokens of which the last few are scored. Requests go through the model sorted by length, in
batches of a few shapes, so that few programs are compiled and little is padding; shorter ones come in
larger batches. Logits exist only where something is scored, and for a block of the vocabulary at a time.
A request sees nothing of the others in its batch, so its score does not depend on them, on the size of a
batch, on the order, or on how many devices and hosts share the rows; sums are made on the host, in double
precision.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.command import bars
from gptjax.errors import InputError
from gptjax.generate import kv_cache
from gptjax.model.compute import in_dtype
from gptjax.model.gpt import GPT
from gptjax.model.parameters import gathered
from gptjax.parallel import sharding
from gptjax.parallel.sharding import flatten_batch as as_rows

LOGITS = 1 << 24, 1 << 22  # of a device that are alive at one time; on a CPU, what its caches hold
NOBODY = float(1 << 24)    # a token beyond any vocabulary; float32 is exact up to here, and compared faster
LEAST = -1e30              # a finite stand-in for the largest of a block that has only padding
SCORED = (8, 64)           # sizes of k below t
SHORTEST = 32              # tokens of the shortest rows


class Request(NamedTuple):
  """Tokens of a text: those from `start` on are scored, given all before them.

  ids: sequence of int, at most n_ctx + 1 of them.
  start: int, at least 1 and less than their number.
  """
  ids: Sequence
  start: int


class Score(NamedTuple):
  """What the model makes of a request.

  total: sum of log p over the scored tokens, nats.
  last: log p of the last one.
  greedy: whether each is the likeliest after all before it.
  last_greedy: whether the last one is.
  allowed: whether each is the likeliest of itself and the tokens that are not barred; `greedy` where none is.
  """
  total: float
  last: float
  greedy: bool
  last_greedy: bool
  allowed: bool


class Barred(NamedTuple):
  """Tokens that `Score.allowed` does not count as rivals.

  masks: bool[m, n_vocab], sets of tokens.
  chosen: for each request int[n], which of them is barred at each of its scored tokens.
  """
  masks: np.ndarray
  chosen: list


def ready(model):
  """The model with its weights in the dtype that it computes in.

  Layers stay stacked, which compiles fast, but on a CPU: copies of them would take a tenth of its time.
  """
  if isinstance(model, GPT) and jax.default_backend() == 'cpu':
    return kv_cache.prepare_for_decoding(model)
  return model if model.dtype == 'float32' else jax.jit(in_dtype, static_argnums=1)(model, model.dtype)


def scores(model, requests, batch_size, *, barred=None, made=None, done=(), keep=lambda i, score: None,
           pulse=lambda: None, name='score', show=False):
  """[Score of each request].

  Args:
    model: a `ready` GPT, under `jax.set_mesh`.
    requests: list of Request.
    batch_size: rows of n_ctx tokens at a time, over all devices.
    barred: Barred, or None: every token is a rival.
    made: function of (float32[n] log p of the scored tokens, bool[n] whether the likeliest, bool[n] whether
      the likeliest of itself and those that are not barred) that makes the answer; None: of a Score.
    done: {number of a request: Score} that are known already.
    keep: function called with the number and Score of each request as they come.
    pulse: function called after each batch.
    name, show: of the progress bar, and whether there is one.

  Raises:
    ValueError: a request is longer than the context, or has nothing to score; logits are not numbers.
  """
  for request in requests:
    if not 1 <= request.start < len(request.ids) <= model.n_ctx + 1:
      raise ValueError(f'{len(request.ids) - request.start} of {len(request.ids)} tokens cannot be scored in '
                       f'a context of {model.n_ctx}')
  found, made = dict(done), made or _score
  left = sorted((i for i in range(len(requests)) if i not in found),
                key=lambda i: (-len(requests[i].ids), requests[i].start - len(requests[i].ids)))
  shards = sharding.batch_shards(jax.sharding.get_abstract_mesh())
  under_way, masks = [], None if barred is None else jnp.asarray(barred.masks)
  with bars.bar(shown=show, total=len(requests), initial=len(found), desc=name, unit='text',
                leave=False) as bar:
    def finish():
      mine, wanted, results = under_way.pop(0)
      for i, counted, *values in zip(mine, wanted >= 0, *jax.device_get(results)):
        _check(values[0][counted])
        found[i] = made(*(value[counted] for value in values))
        keep(i, found[i])
      bar.update(len(mine))
      pulse()

    begin, most = 0, rows_of(SHORTEST, model.n_ctx, batch_size, shards)
    while begin < len(left):
      tokens, at, wanted, n = batch([requests[i] for i in left[begin:begin + most]], model.n_ctx, batch_size,
                                    shards)
      mine, marks = left[begin:begin + n], None
      if barred is not None:
        marks = np.zeros_like(wanted)
        marks[wanted >= 0] = np.concatenate([barred.chosen[i] for i in mine])
      under_way.append((mine, wanted, score_rows(model, tokens, at, wanted, masks, marks)))
      begin += n
      if len(under_way) > 1:  # one is computed while the one before is read
        finish()
    while under_way:
      finish()
  return [found[i] for i in range(len(requests))]


def batch(requests, n_ctx, batch_size, shards):
  """The first few of requests sorted by length, longest first, as arrays of one of a few shapes.

  Returns:
    (int32[b, t] tokens; int32[b] position from which on is scored; int32[b, k] the tokens wanted there, -1:
    none; how many requests these are). Rows beyond them score nothing.
  """
  t = length_of(len(requests[0].ids) - 1, n_ctx)
  most = rows_of(t, n_ctx, batch_size, shards)
  requests = requests[:most]
  b = min(most, shards << (-(-len(requests) // shards) - 1).bit_length())
  longest = max(len(request.ids) - request.start for request in requests)
  k = next((size for size in SCORED if longest <= size < t), t)
  tokens, wanted = np.zeros((b, t), np.int32), np.full((b, k), -1, np.int32)
  at = np.zeros(b, np.int32)
  for row, (ids, start) in enumerate(requests):
    tokens[row, :len(ids) - 1] = ids[:-1]
    at[row] = 0 if k == t else start - 1
    first = start - 1 - at[row]
    wanted[row, first:first + len(ids) - start] = ids[start:]
  return tokens, at, wanted, len(requests)


def rows_of(t, n_ctx, batch_size, shards):
  """How many rows of t tokens are as much work as batch_size of n_ctx, a multiple of the devices' number."""
  return shards * max(1, batch_size * n_ctx // (t * shards))


def length_of(n, n_ctx):
  """The least of a ladder of lengths, four an octave, that holds n tokens; at most n_ctx."""
  octave = max(0, (-(-n // SHORTEST) - 1).bit_length() - 1)
  step = max(8, (SHORTEST << octave) // 4)
  return min(max(SHORTEST, -(-n // step) * step), n_ctx)


def _check(log_probs):
  if np.isnan(log_probs).any():
    raise InputError('the model gives logits that are not numbers: its weights are damaged')


def _score(log_probs, likeliest, allowed):
  return Score(float(log_probs.sum(dtype=np.float64)), float(log_probs[-1]), bool(likeliest.all()),
               bool(likeliest[-1]), bool(allowed.all()))


@jax.jit
def score_rows(model, tokens, at, wanted, masks, marks):
  """Log probabilities of tokens.

  Args:
    model: a `ready` GPT, under `jax.set_mesh`.
    tokens: int32[b, t].
    at: int32[b], the position of each row that predicts its first wanted token.
    wanted: int32[b, k], the tokens from there on; negative: not counted.
    masks: bool[m, n_vocab] or None, see `Barred`.
    marks: int32[b, k] or None, which of the masks is barred.

  Returns:
    (float32[b, k] log p in nats; bool[b, k] whether the likeliest, of equals the first; bool[b, k] whether
    the likeliest of itself and those that are not barred).
  """
  place = lambda x: jax.reshard(x, sharding.compute_spec('batch', None))
  tokens, wanted = place(tokens), place(wanted)
  x, k = model.features(tokens), wanted.shape[1]
  if k < x.shape[1]:
    first = jax.reshard(at, sharding.compute_spec('batch'))[:, None]
    places = jnp.minimum(first + jnp.arange(k), x.shape[1] - 1)
    x = jax.vmap(lambda row, place: row.at[place].get(out_sharding=jax.P(None, None)))(x, places)
  marks = None if masks is None else as_rows(place(marks))
  found = _compared(as_rows(x), gathered(model.unembedding), as_rows(wanted), model.n_vocab, masks, marks)
  return tuple(jax.reshard(sharding.split_axis(a, 0, wanted.shape), jax.P()) for a in found)


def _compared(x, table, target, n_vocab, masks=None, marks=None):
  """`score_rows` for features x [n, d] and tokens and marks [n], a block of the vocabulary [c] at a time."""
  target = jnp.maximum(target, 0).astype(jnp.float32)
  column = jnp.arange(len(table), dtype=jnp.float32, out_sharding=sharding.compute_spec('vocab'))
  column = jnp.where(column < n_vocab, column, NOBODY)
  barred = None
  if masks is not None:
    barred = jnp.pad(masks.T, ((0, len(table) - n_vocab), (0, 0)))
    barred = jax.reshard(barred, sharding.compute_spec('vocab', None))
    mark = (marks[:, None] == jnp.arange(len(masks))).astype(jnp.float32)

  def block(table, column, barred):
    logits = jnp.einsum('nd,cd->nc', x.astype(table.dtype), table, preferred_element_type=jnp.float32)
    logits = jnp.where(column < NOBODY, logits, -jnp.inf)
    most, _ = likeliest = _likeliest(logits, column)
    total = jnp.exp(logits - jnp.maximum(most, LEAST)[:, None]).sum(-1)
    own = jnp.where(column == target[:, None], logits, -jnp.inf).max(-1)
    if barred is None:
      return most, total, own, likeliest, likeliest
    # A product and not a gather, because then the devices share it as they share the logits.
    out = jnp.einsum('nm,cm->nc', mark, barred.astype(jnp.float32)) > 0.5
    out &= column != target[:, None]
    return most, total, own, likeliest, _likeliest(jnp.where(out, -jnp.inf, logits), column)

  devices, on_cpu = sharding.batch_shards(jax.sharding.get_abstract_mesh()), jax.default_backend() == 'cpu'
  cut = functools.partial(sharding.split_into_blocks, size=max(1, LOGITS[on_cpu] * devices // len(x)))
  blocks = cut(table), cut(column, value=NOBODY), None if barred is None else cut(barred, value=False)
  most, total, own, *both = jax.lax.map(lambda one: block(*one), blocks)
  sums = (total * jnp.exp(most - most.max(0))).sum(0)
  wins = [jnp.where(most == most.max(0), first, NOBODY).min(0) == target for most, first in both]
  return own.max(0) - most.max(0) - jnp.log(sums), *wins


def _likeliest(logits, column):
  """The largest of logits [n, c], and the first column where it is; argmax takes a CPU twice as long."""
  most = logits.max(-1)
  return most, jnp.where(logits == most[:, None], column, NOBODY).min(-1)
