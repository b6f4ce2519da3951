"""The pretraining job: all that happens around the step, and nothing that the step computes."""

import contextlib
import functools
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from gptjax import config as configs
from gptjax import generate, sharding, telemetry
from gptjax.checkpoint import Checkpoints, restore
from gptjax.data import corpus as corpora
from gptjax.data import mixture as mixtures
from gptjax.data import ngrams, pipeline, tokenizers
from gptjax.model import in_dtype
from gptjax.pretrained import run as weights
from gptjax.train import eval_step, first_state, graph, init_state, train_step

DONE, STOPPED = 0, 75  # exit codes: finished; saved because told to stop, start me again


class Run(NamedTuple):
  """What does not change during a run."""
  config: Any
  workdir: Path
  mesh: Any
  graphdef: Any
  mixture: Any  # mixtures.Mixture
  steps: int


def pretrain(config, workdir):
  """Trains to the end, or until told to stop; goes on where the workdir's newest checkpoint is.

  Args:
    config: as written; it is resolved in place.
    workdir: folder of the run.

  Returns:
    Exit code: 0 or 75.

  Raises:
    ValueError: bad config or input, one line.
  """
  configs.resolve(config, workdir)
  configs.check(config)
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  if config.data.source and not (Path(config.data.corpus) / 'manifest.json').exists():
    configs.make_workdir(workdir)
    prepare_corpus(config)
  mixture = mixtures.open_mixture(*mixtures.named(config.data), verify=config.data.verify)
  mixtures.check(mixture, config)
  first_corpus = mixture.train[0]  # they share one tokenizer
  tokenizer = Path(first_corpus.folder) / 'tokenizer'
  with jax.set_mesh(mesh):
    source = weights.first(config, workdir, first_corpus.tokenizer['digest'])
    export = weights.exporter(config, workdir, tokenizer)
  configs.make_workdir(workdir)
  configs.claim(config, workdir, mixture.digest)
  weights.keep_tokenizer(tokenizer, workdir)
  with jax.set_mesh(mesh), stop_signals() as asked:
    run = Run(config, Path(workdir), mesh, graph(config), mixture, n_steps(config, mixture))
    return _pretrain(run, asked, source, export)


def n_steps(config, mixture):
  """Updates in the run; an epoch is as many sequences as all corpora together have windows."""
  windows = sum(n_windows(config, corpus) for corpus in mixture.train)
  return config.train.steps or math.ceil(config.train.epochs * windows / config.train.batch_size)


def n_windows(config, corpus):
  """Sequences in an epoch of the corpus."""
  return corpora.n_windows(corpus, config.data.seq_len, config.data.cross_documents)


def prepare_corpus(config):
  """Makes the corpus that the config names a source for."""
  from gptjax.data.prepare import prepare
  data = config.data
  prepare([data.source], data.tokenizer, data.corpus, validation_fraction=data.validation_fraction,
          clean='', workers=1, tfds_dir=data.tfds_dir, on_error='stop')


@contextlib.contextmanager
def stop_signals():
  """A dict whose 'stop' turns True on SIGTERM or Ctrl-C; the second one ends the process at once."""
  asked = {'stop': False}
  def ask(number, frame):
    del frame
    if asked['stop']:
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
    asked['stop'] = True
  before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield asked
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _pretrain(run, asked, source, export):
  """Sets up what writes, runs the loop, and tells how it ended."""
  config = run.config
  init = functools.partial(init_state, config)
  shapes = sharding.concrete(jax.eval_shape(init), run.mesh)
  folder = run.workdir / 'checkpoints'
  restored = restore(folder, shapes, lambda line: print(line, file=sys.stderr))
  if restored and restored[1]['facts']['corpus_digest'] != run.mixture.digest:
    raise ValueError(f'{folder} holds checkpoints of a run on another corpus: use another workdir')
  if restored:
    state = restored[0]
  elif source:
    state = jax.jit(functools.partial(first_state, config))(source.read(shapes.params))
  else:
    state = jax.jit(init)()
  start = int(state.step)
  tell = telemetry.Telemetry(run.workdir, run.steps, start, config.log.tensorboard)
  saves = Checkpoints(folder, config.checkpoint.keep, config.checkpoint.keep_best,
                      {'corpus_digest': run.mixture.digest, 'versions': configs.versions()}, export)
  try:
    greet(run, tell, state, start)
    if source:
      tell.say(f'first weights from {source.place}')
    batches = pipeline.batches(functools.partial(train_batch, run), start, run.steps,
                               prefetch=config.data.prefetch, workers=2)
    batches = pipeline.ahead(batches, functools.partial(sharding.put, mesh=run.mesh), 2)
    with contextlib.closing(batches):
      state, finished = loop(run, state, batches, tell, saves, asked)
    if finished:
      farewell(run, tell, state)
    else:
      tell.say(f'stopped after step {int(state.step)}, saved: the same command goes on from there')
    return DONE if finished else STOPPED
  finally:
    saves.close()
    tell.close()


def greet(run, tell, state, start):
  """Says what is about to run: weights, devices, corpus, length."""
  from clu import parameter_overview
  config, mixture = run.config, run.mixture
  n_vocab, d = config.model.n_vocab, config.model.n_embd
  embeddings = ('wte', 'lm_head') if 'lm_head' in state.params else ('wte',)
  shown = {**state.params, **dict.fromkeys(embeddings, jax.ShapeDtypeStruct((n_vocab, d), np.float32))}
  tell.say(parameter_overview.get_parameter_overview(shown, include_stats=False))
  devices = jax.devices()
  tokens = config.train.batch_size * config.data.seq_len
  tell.say(f'{len(devices)} x {devices[0].device_kind}, mesh {dict(run.mesh.shape)}, '
           f'{config.model.compute_dtype}, attention {config.attention.kernel}')
  for weight, corpus, held_out in zip(mixture.weights, mixture.train, mixture.held_out, strict=True):
    weight /= sum(mixture.weights)
    share = f'{weight:.2%} of the sequences, ' if len(mixture.train) > 1 else ''
    tell.say(f'corpus {corpus.folder}: {share}{corpus.n_tokens:,} tokens to train on '
             f'({weight * run.steps * config.train.batch_size / n_windows(config, corpus):.2f} epochs), '
             f'{held_out.n_tokens if held_out else 0:,} held out')
  tell.say(f'{run.steps:,} steps of {tokens:,} tokens')
  if start:
    tell.say(f'going on after step {start}')


def compile_step(run, state, batch, tell):
  """The train step, compiled for the shapes of `state` and `batch`; the state is donated."""
  step = functools.partial(train_step, config=run.config, graphdef=run.graphdef, steps=run.steps)
  started = time.monotonic()
  compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
  tell.say(f'compiled the step in {time.monotonic() - started:.1f} s')
  return compiled


def loop(run, state, batches, tell, saves, asked):
  """Trains from `state.step` to the last step, or until `asked['stop']`.

  The metrics of a step are read while the next one runs, so that the device never waits.

  Returns:
    (state, whether the last step was reached).
  """
  start, evaluate = int(state.step), Evaluation(run)
  watch, step_fn, late, profiling = telemetry.Stopwatch(), None, None, False
  side_work(run, state, start, tell, saves, asked, evaluate)
  for step in range(start, run.steps):
    if asked['stop']:
      break
    profiling = profile(run, step, state, profiling)
    batch, waited = next(batches)
    watch.input += waited
    if step_fn is None:
      step_fn = compile_step(run, state, batch, tell)
      watch.restart()
    state, metrics = step_fn(state, batch)
    if late:
      report(run, tell, watch, *late)
    late = step + 1, metrics
    if due(run, step + 1) or asked['stop']:
      report(run, tell, watch, *late)
      late = None
      aside = time.monotonic()
      side_work(run, state, step + 1, tell, saves, asked, evaluate)
      watch.aside += time.monotonic() - aside
    note_save(tell, saves.poll())
  if late:
    report(run, tell, watch, *late)
  step = int(state.step)
  profile(run, math.inf, state, profiling)
  if asked['stop']:
    saves.save(state, step, tell.value(step, 'eval/loss'))
  note_save(tell, saves.wait())
  return state, step == run.steps and not asked['stop']


def due(run, step):
  """Whether something other than training happens after this step."""
  return any(_due(every, step, run.steps) for every in (
    run.config.eval.every_steps, run.config.checkpoint.every_steps))


def _due(every, step, last):
  return step == last or (every > 0 and step > 0 and step % every == 0)


def side_work(run, state, step, tell, saves, asked, evaluate):
  """Evaluation and checkpoint, where due after `step` and not yet on record."""
  config = run.config
  if (any(run.mixture.held_out) and _due(config.eval.every_steps, step, run.steps)
      and tell.value(step, 'eval/loss') is None):
    losses = evaluate(state.params, asked)
    if losses:
      loss = run.mixture.held_out_mean(losses.values())
      perplexity = math.exp(min(loss, 700))
      parts = losses if len(run.mixture.names) > 1 else {}
      tell.write(step, {'eval/loss': loss, 'eval/perplexity': perplexity,
                        **{f'eval/loss/{name}': part for name, part in parts.items()}})
      tell.say(f'step {step}  held-out loss {loss:.4f}  perplexity {perplexity:.2f}'
               + ''.join(f'  {name} {part:.4f}' for name, part in parts.items()))
  if _due(config.checkpoint.every_steps, step, run.steps):
    note_save(tell, saves.wait())
    saves.save(state, step, tell.value(step, 'eval/loss'))


def note_save(tell, saved):
  if saved:
    step, seconds = saved
    tell.write(step, {'checkpoint/seconds': seconds})


def report(run, tell, watch, step, metrics):
  """Checks the metrics of a step that has been dispatched earlier, and logs them where due."""
  config = run.config
  metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
  watch.steps += 1  # now it is done, and not when it was dispatched
  if metrics['skipped'] >= config.train.max_skipped:
    raise ValueError(
      f'{int(metrics["skipped"])} steps in a row up to step {step} had a loss or gradient that is not '
      'finite: lower config.optimizer.learning_rate or look at the data (gptjax.data.inspect); '
      'weights are those of the last finite step')
  if step % config.log.every_steps and step != run.steps:
    return
  seconds, input_wait = watch.report()
  tokens = config.train.batch_size * config.data.seq_len
  metrics = {f'train/{name}': value for name, value in metrics.items()} | {
    'train/tokens_per_second': tokens / seconds, 'train/input_wait_fraction': input_wait}
  line = (f'loss {metrics["train/loss"]:.4f}  {tokens / seconds:,.0f} tokens/s')
  peak = telemetry.peak_flops(jax.devices()[0])
  if peak:
    flops = telemetry.flops_per_token(config.model, config.data.seq_len)
    per_device = tokens / seconds / jax.device_count()
    metrics['train/mfu'] = per_device * flops['palm'] / peak
    metrics['train/mfu_causal'] = per_device * flops['causal'] / peak
    line += f'  MFU {metrics["train/mfu"]:.1%}'
  tell.write(step, metrics)
  tell.progress(step, f'{line}  {telemetry.duration((run.steps - step) * seconds)} left')


def profile(run, step, state, on):
  """Starts or ends the profile that `config.log.profile_steps` asks for; whether it is on now."""
  first, end = run.config.log.profile_steps
  if not on and first <= step < end:
    jax.profiler.start_trace(str(run.workdir / 'tensorboard'))
    return True
  if on and step >= end:
    jax.block_until_ready(state)
    jax.profiler.stop_trace()
    return False
  return on


def train_batch(run, step):
  """This host's rows of batch `step`: {'inputs', 'targets'} int32[rows, seq_len]."""
  c = run.config
  return corpora.batch(run.mixture.train, run.mixture.weights, c.train.seed, step, c.train.batch_size,
                       c.data.seq_len, c.data.cross_documents,
                       rows=sharding.local_rows(c.train.batch_size))


class Evaluation:
  """Held-out loss; compiled once, called many times."""

  def __init__(self, run):
    self.run = run
    self.step = jax.jit(functools.partial(eval_step, config=run.config, graphdef=run.graphdef))

  def __call__(self, params, asked):
    """{name of a corpus: mean loss in nats a token}; None if told to stop on the way."""
    run, config = self.run, self.run.config
    rows = sharding.local_rows(config.eval.batch_size)
    losses = {}
    for name, corpus in zip(run.mixture.names, run.mixture.held_out, strict=True):
      if not corpus:
        continue
      n = corpora.n_eval_batches(corpus, config.eval.batch_size, config.data.seq_len)
      sums = []
      for i in range(min(n, config.eval.steps) if config.eval.steps else n):
        if asked['stop']:
          return None
        batch = corpora.eval_batch(corpus, i, config.eval.batch_size, config.data.seq_len, rows)
        sums.append(self.step(params, sharding.put(batch, run.mesh)))
      total, count = np.sum(jax.device_get(sums), axis=0, dtype=np.float64)
      losses[name] = float(total / count)
    return losses


def farewell(run, tell, state):
  """Held-out loss beside simple models, a sample, and where everything lies."""
  config, mixture = run.config, run.mixture
  held_out = {name: corpus.n_bytes / corpus.n_tokens
              for name, corpus in zip(mixture.names, mixture.held_out, strict=True) if corpus}
  baselines = ngram_baselines(run) if config.eval.ngrams and held_out else {}
  loss = tell.value(run.steps, 'eval/loss')
  if loss is not None:
    length = mixture.held_out_mean(held_out.values())
    rows = [(name, value, length) for name, value in [*baselines.items(), ('this model', loss)]]
    if len(mixture.names) > 1:
      parts = {name: tell.value(run.steps, f'eval/loss/{name}') for name in held_out}
      # None: it went by another name when it was measured, before its folder was moved.
      rows += [(f'  of {name}', part, held_out[name]) for name, part in parts.items() if part is not None]
    width = max(16, *(len(name) + 2 for name, *_ in rows))
    tell.say(f'\n{"held-out text":<{width}}{"nats/token":>12}{"perplexity":>12}{"bits/byte":>12}')
    for name, value, length in rows:
      tell.say(f'{name:<{width}}{value:>12.4f}{math.exp(value):>12.2f}{value / length / math.log(2):>12.3f}')
  if config.log.sample_tokens:
    tell.say(f'\nsample:\n{sample_text(run, state.params)}')
  curves = telemetry.plot_curves(run.workdir, baselines) if jax.process_index() == 0 else None
  tell.say(f'\ncurves        {curves}\nmetrics       {tell.path}\n'
           f'checkpoints   {run.workdir / "checkpoints"}\n'
           + f'export        {run.workdir / "export"}\n' * config.checkpoint.export +
           f'tensorboard   tensorboard --logdir {run.workdir / "tensorboard"}')


def ngram_baselines(run):
  """{'unigram': loss, 'bigram': loss} of held-out text, in nats a token; a model for each corpus."""
  mixture, n_vocab, losses = run.mixture, run.config.model.n_vocab, []
  for corpora_of in zip(mixture.train, mixture.held_out, strict=True):
    if all(corpora_of):
      train, held_out = (split.tokens(0, split.n_tokens) for split in corpora_of)
      losses.append((ngrams.unigram_loss(train, held_out, n_vocab),
                     ngrams.bigram_loss(train, held_out, n_vocab)))
  return {name: mixture.held_out_mean(values)
          for name, values in zip(('unigram', 'bigram'), zip(*losses, strict=True), strict=True)}


def sample_text(run, params):
  """What the model writes after `config.log.sample_prompt` (top-k 40, as in the papers)."""
  config = run.config
  tokenizer = tokenizers.load(str(Path(run.mixture.train[0].folder) / 'tokenizer'))
  start = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
  prompt = (list(tokenizer.encode(config.log.sample_prompt)) or start or [0])[1 - config.model.n_ctx:]
  model = in_dtype(nnx.merge(run.graphdef, params), config.model.compute_dtype)
  n_tokens = min(config.log.sample_tokens, config.model.n_ctx - len(prompt))
  tokens = generate.sample(model, prompt, n_tokens, jax.random.key(config.train.seed), top_k=40)
  return tokenizer.decode(tokens[len(prompt):] if prompt == start else tokens)
