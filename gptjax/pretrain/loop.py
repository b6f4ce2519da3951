"""The pretraining job: all that happens around the step, and nothing that the step computes."""

import contextlib
import copy
import functools
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.command import shutdown
from gptjax.config import memory, resume
from gptjax.config import resolve as configs
from gptjax.data.corpus import mixture as mixtures
from gptjax.data.corpus import pipeline, reader
from gptjax.domains import LARGEST
from gptjax.errors import InputError
from gptjax.evaluate.during import Tasks
from gptjax.evaluate.tasks import suite
from gptjax.files import literal_path
from gptjax.kernels import xla_presets
from gptjax.parallel import processes, sharding
from gptjax.parallel.watchdog import Watchdog
from gptjax.pretrain import console, rewind
from gptjax.pretrained import run_weights
from gptjax.pretrained.export import export_obstacle
from gptjax.report.telemetry import Profile, Stopwatch, Telemetry
from gptjax.storage import ownership, rewind_log
from gptjax.storage.checkpoint import Checkpoints, restore
from gptjax.train.step import eval_step, first_state, graph, init_state, train_step

DONE, STOPPED = 0, shutdown.STOPPED  # exit codes: finished; saved because told to stop, start me again
PREPARE_LIMIT = 24 * 3600  # seconds that the other processes wait for process 0 to prepare a corpus


class Run(NamedTuple):
  """What does not change during a run."""
  config: Any
  workdir: Path
  mesh: Any
  graphdef: Any
  mixture: Any  # mixtures.Mixture
  steps: int
  stop: Any      # hosts.Stop
  watchdog: Any  # Watchdog
  rewinds: tuple = ()  # of the run so far, see gptjax.pretrain.rewind


def pretrain(config, workdir, overrides=()):
  """Trains to the end, or until told to stop; goes on where the workdir's newest checkpoint is.

  Args:
    config: as written; it is resolved in place.
    workdir: folder of the run.
    overrides: names of the fields that the command line sets, like 'train.steps'.

  Returns:
    Exit code: 0 or 75.

  Raises:
    ValueError: bad config or input, one line.
  """
  # What is cheap comes first, and nothing is made before all of it has passed.
  configs.check_fields(config)
  resume.keep_stored_fields(config, workdir, overrides)
  suite.chosen(config.eval.tasks)
  source = run_weights.open_initial_weights(config, workdir, overrides)
  configs.resolve(config, workdir)
  configs.check(config)
  if config.checkpoint.export and (why := export_obstacle(config)):
    raise InputError(f'config.checkpoint.export = True, but {why}: set it to False')
  processes.compare(configs.facts(config) | {'--workdir': os.path.abspath(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  memory.check(config, mesh)
  mixtures.require_corpora(config.data)
  literal_path.check(workdir)
  with ownership.own_workdir(workdir):
    return run_owned(config, workdir, mesh, source)


def run_owned(config, workdir, mesh, source):
  """The run, once no other process writes to its workdir; arguments and result as for `pretrain`.

  Args:
    source: of the first weights, or None.
  """
  processes.on_process_0(lambda: prepare_corpus(config, workdir, source and source.tokenizer), PREPARE_LIMIT)
  mixture = mixtures.open_mixture(*mixtures.folders_and_weights(config.data), verify=config.data.verify)
  mixtures.check_compatible(mixture, config)
  processes.compare({f'digest of corpus {number}': corpus.digest
                     for number, corpus in enumerate(mixture.train)})
  first_corpus = mixture.train[0]  # they share one tokenizer
  tokenizer = Path(first_corpus.folder) / 'tokenizer'
  run_weights.check_tokenizer(config, source, first_corpus.tokenizer)
  with jax.set_mesh(mesh):
    export = run_weights.make_exporter(config, workdir, source, tokenizer)
  initialize_workdir(config, workdir, mixture, source, tokenizer)
  with (jax.set_mesh(mesh), processes.stop_signals() as stop,
        contextlib.closing(Watchdog(config.watchdog)) as dog):
    run = Run(config, Path(workdir), mesh, graph(config), mixture, n_steps(config, mixture), stop, dog)
    return _pretrain(run, source, export)


def n_steps(config, mixture):
  """Updates in the run; an epoch is as many sequences as all corpora together have windows."""
  windows = sum(reader.n_windows(corpus, config.data.seq_len, config.data.cross_documents)
                for corpus in mixture.train)
  steps = config.train.steps or math.ceil(config.train.epochs * windows / config.train.batch_size)
  if steps > LARGEST:
    raise InputError(f'config.train.epochs = {config.train.epochs} are {steps:,} steps, more than {LARGEST}')
  return steps


def prepare_corpus(config, workdir, tokenizer=None):
  """Makes the corpus that the config names a source for, if it is not there yet.

  Args:
    config: resolved.
    workdir: folder of the run.
    tokenizer: that of the first weights, which goes before `config.data.tokenizer`; None: there is none.
  """
  data = config.data
  if not data.source or (Path(data.corpus) / 'manifest.json').exists():
    return
  from gptjax.data.prepare import prepare
  configs.make_workdir(workdir)
  if tokenizer:
    run_weights.save_tokenizer(tokenizer, workdir)
  spec = str(Path(workdir) / 'tokenizer') if tokenizer else data.tokenizer
  shutdown.exit_on_signal('stopped while the corpus is prepared: the same command continues after its last '
                          'commit')
  prepare([data.source], spec, data.corpus, validation_fraction=data.validation_fraction, clean='',
          workers=1, tfds_dir=data.tfds_dir, on_error='stop', seq_len=data.seq_len,
          tfds_download=data.tfds_download, special_tokens=data.special_tokens)
  shutdown.exit_on_signal('stopped before the first step, the corpus is prepared: the same command starts it')


def initialize_workdir(config, workdir, mixture, source, tokenizer):
  """What process 0 writes into the workdir before the run: config.json and the tokenizer.

  Raises:
    ValueError: as `config.resolve.write_or_check_config`; or the processes do not see the same folder.
  """
  def length(steps, epochs):
    other = copy.deepcopy(config)
    other.train.update(dict(steps=steps, epochs=epochs))
    return n_steps(other, mixture)
  def lay():
    configs.make_workdir(workdir)
    configs.write_or_check_config(config, workdir, mixture.digest, length)
    run_weights.save_run_tokenizer(source, tokenizer, workdir)
    return (Path(workdir) / 'config.json').read_text()
  written, path = processes.on_process_0(lay), Path(workdir) / 'config.json'
  if not path.exists() or path.read_text() != written:
    raise InputError(f'{path} is not the file that process 0 wrote: --workdir must be a folder that all '
                     'hosts share')


def _pretrain(run, source, export):
  """Trains from the newest checkpoint to the end; after a loss spike, again from an older one."""
  telemetry = Telemetry(run.workdir, run.steps, run.config.log.tensorboard)
  with contextlib.closing(telemetry):
    while True:
      try:
        return train_attempt(run, source, export, telemetry)
      except rewind.Spike as spike:
        telemetry.log(f'{spike}: going back')
        processes.on_process_0(lambda spike=spike: rewind.record(run.config, run.workdir, spike))


def train_attempt(run, source, export, telemetry):
  """Sets up what writes, runs the loop, and tells how it ended."""
  config = run.config
  run = run._replace(rewinds=processes.on_process_0(lambda: rewind.apply_rewinds(run.workdir)))
  state = initial_state(run, source, telemetry)
  start = int(state.step)
  shutdown.exit_on_signal(shutdown.resume_message(start))
  telemetry.begin(start)
  saves = Checkpoints(run.workdir / 'checkpoints', config.checkpoint.keep, config.checkpoint.keep_best,
                      {'corpus_digest': run.mixture.digest, 'versions': configs.versions(),
                       **rewind_log.facts(run.rewinds)}, export)
  try:
    console.log_start(run, telemetry, state, start)
    batches = pipeline.batches(functools.partial(train_batch, run), start, run.steps,
                               prefetch=config.data.prefetch, workers=2)
    batches = pipeline.prefetch_to_device(batches, functools.partial(sharding.shard_batch, mesh=run.mesh), 2)
    with contextlib.closing(batches):
      state, finished = loop(run, state, batches, telemetry, saves)
    telemetry.close_bar()
    if finished:
      shutdown.exit_on_signal('stopped before the closing report; the last step is saved: the same command '
                              'writes the report')
      run.watchdog.progress(slow=True)
      console.log_summary(run, telemetry, state)
    else:
      telemetry.log(f'stopped after step {int(state.step)}, saved: the same command goes on from there')
    telemetry.write(int(state.step), telemetry.goodput(0.0))  # else the next start omits the time since then
    return DONE if finished else STOPPED
  except Exception as error:
    if not isinstance(error, rewind.Spike):
      processes.fail(error, run.workdir)  # now: closing waits for a save in flight, and that for the others
    raise
  finally:
    saves.close()


def initial_state(run, source, telemetry):
  """That of the newest good checkpoint, else one with the weights of `source`, else a fresh one."""
  config, folder = run.config, run.workdir / 'checkpoints'
  init = functools.partial(init_state, config)
  shapes = sharding.with_shardings(jax.eval_shape(init), run.mesh)
  restored = restore(folder, shapes, lambda line: print(line, file=sys.stderr))
  if restored and restored[1]['facts'].get('corpus_digest') != run.mixture.digest:
    raise InputError(f'{folder} holds checkpoints of a run on another corpus: use another workdir')
  if restored:
    return restored[0]
  if source:
    telemetry.log(f'first weights from {source.folder}')
    return jax.jit(functools.partial(first_state, config))(source.read(shapes.params))
  return jax.jit(init)()


def compile_step(run, state, batch, telemetry):
  """The train step, compiled for the shapes of `state` and `batch`; the state is donated."""
  step = functools.partial(train_step, config=run.config, graphdef=run.graphdef, steps=run.steps)
  started = time.monotonic()
  telemetry.busy('compiling the step')
  lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
  compiled = lowered.compile(compiler_options=xla_presets.options(run.config.xla_preset))
  telemetry.bar.set_postfix_str('')
  telemetry.log(f'compiled the step in {time.monotonic() - started:.1f} s')
  return compiled


def loop(run, state, batches, telemetry, saves):
  """Trains from `state.step` to the last step, or until told to stop.

  The metrics of a step are read while the next one runs, so that the device never waits.

  Returns:
    (state, whether the last step was reached).

  Raises:
    rewind.Spike: the loss calls for going back.
  """
  start, evaluate, tasks = int(state.step), Evaluation(run), Tasks(run, telemetry.log)
  watch, step_fn, late = Stopwatch(), None, None
  evaluate_and_checkpoint(run, state, start, telemetry, saves, evaluate, tasks)
  with contextlib.closing(Profile(run.workdir, *run.config.log.profile_steps)) as profile:
    for step in range(start, run.steps):
      if run.stop.requested():
        break
      profile.at(step, state)
      batch, waited = next(batches)
      watch.input += waited
      if step_fn is None:
        step_fn = compile_step(run, state, batch, telemetry)
        shutdown.defer_signal(processes.STOPPING)  # from here on, an exit would lose unsaved steps
        watch.restart()
      state, metrics = step_fn(state, batch)
      if late:
        console.log_step(run, telemetry, watch, *late)
        run.watchdog.progress()
      late = step + 1, metrics
      if due(run, step + 1):
        console.log_step(run, telemetry, watch, *late)
        late = None
        aside = time.monotonic()
        evaluate_and_checkpoint(run, state, step + 1, telemetry, saves, evaluate, tasks)
        watch.excluded += time.monotonic() - aside
      log_save(telemetry, saves.poll())
    if late:
      console.log_step(run, telemetry, watch, *late)
    run.watchdog.progress(slow=True)
    profile.at(math.inf, state)
  step = int(state.step)
  stopped = run.stop.requested()  # an evaluation after the last step may have been cut short too
  if stopped:
    saves.save(state, step, telemetry.value(step, 'eval/loss'))
  log_save(telemetry, saves.wait())
  processes.on_process_0(lambda: None)  # process 0 has signed the checkpoint: from here on nothing is lost
  return state, not stopped


def due(run, step):
  """Whether something other than training happens after this step."""
  return any(_due(every, step, run.steps) for every in (
    run.config.eval.every_steps, run.config.checkpoint.every_steps))


def _due(every, step, last):
  return step == last or (every > 0 and step > 0 and step % every == 0)


def evaluate_and_checkpoint(run, state, step, telemetry, saves, evaluate, tasks):
  """Evaluation and checkpoint, where due after `step` and not yet on record."""
  config = run.config
  run.watchdog.progress(slow=True)
  if (any(run.mixture.held_out) and _due(config.eval.every_steps, step, run.steps)
      and telemetry.value(step, 'eval/loss') is None):
    losses = evaluate(state.params)
    if losses:
      loss = run.mixture.held_out_mean(losses.values())
      perplexity = math.exp(min(loss, 700))
      parts = losses if len(run.mixture.names) > 1 else {}
      bits = loss / run.mixture.held_out_bytes_per_token() / math.log(2)
      telemetry.write(step, {'eval/loss': loss, 'eval/perplexity': perplexity, 'eval/bits_per_byte': bits,
                             **{f'eval/loss/{name}': part for name, part in parts.items()}})
      telemetry.log(f'step {step}  held-out loss {loss:.4f}  perplexity {perplexity:.2f}'
                    + ''.join(f'  {name} {part:.4f}' for name, part in parts.items()))
  if tasks and _due(config.eval.every_steps, step, run.steps) and telemetry.value(step, 'eval/tasks') is None:
    found = tasks(state.params)
    if found is not None:
      telemetry.write(step, {'eval/tasks': len(found), **found})
  if _due(config.checkpoint.every_steps, step, run.steps):
    log_save(telemetry, saves.wait())
    saves.save(state, step, telemetry.value(step, 'eval/loss'))


def log_save(telemetry, saved):
  if saved:
    step, seconds = saved
    telemetry.write(step, {'checkpoint/seconds': seconds})


def train_batch(run, step):
  """This host's rows of the batch of update `step`: {'inputs', 'targets'} int32[rows, seq_len]."""
  c, number = run.config, rewind_log.batch_number(run.rewinds, step)
  return reader.batch(run.mixture.train, run.mixture.weights, c.train.seed, number, c.train.batch_size,
                      c.data.seq_len, c.data.cross_documents,
                      rows=sharding.local_rows(c.train.batch_size, run.mesh), shift=c.data.shift_windows)


class Evaluation:
  """Held-out loss; compiled once, called many times."""

  def __init__(self, run):
    self.run = run
    self.step = jax.jit(functools.partial(eval_step, config=run.config, graphdef=run.graphdef))

  def __call__(self, params):
    """{name of a corpus: mean loss in nats a token}; None if told to stop on the way."""
    run, config = self.run, self.run.config
    rows = sharding.local_rows(config.eval.batch_size, run.mesh)
    losses = {}
    for name, corpus in zip(run.mixture.names, run.mixture.held_out, strict=True):
      if not corpus:
        continue
      n = reader.n_eval_batches(corpus, config.eval.batch_size, config.data.seq_len)
      sums = []
      for i in range(min(n, config.eval.steps) if config.eval.steps else n):
        if run.stop.requested():
          return None
        batch = reader.eval_batch(corpus, i, config.eval.batch_size, config.data.seq_len, rows)
        sums.append(self.step(params, sharding.shard_batch(batch, run.mesh)))
        jax.block_until_ready(sums[-2:-1])  # a few are under way, not all: else the watchdog could not tell
        run.watchdog.progress()
      total, count = np.sum(jax.device_get(sums), axis=0, dtype=np.float64)
      losses[name] = float(total / count)
    return losses
