"""The pretraining job: everything around the train step."""

import contextlib
import functools
import math
import sys
import time
from typing import Any, NamedTuple

import jax

from gptjax.command import background, shutdown
from gptjax.config import memory, resume
from gptjax.config import resolve as configs
from gptjax.data.corpus import mixture as mixtures
from gptjax.data.corpus import pipeline, reader, remote_shards
from gptjax.errors import InputError
from gptjax.evaluate.in_training import TaskEvaluator
from gptjax.evaluate.tasks import suite
from gptjax.kernels import cpu, xla_presets
from gptjax.parallel import control, processes, sharding
from gptjax.parallel.watchdog import Watchdog
from gptjax.pretrain import console, rewind
from gptjax.pretrain.evaluation import Evaluation
from gptjax.pretrain.preparation import PREPARE_LIMIT, initialize_workdir, n_steps, prepare_corpus
from gptjax.pretrain.trace import step_shapes, trace_step
from gptjax.pretrained import run_weights
from gptjax.pretrained.export import export_unsupported_reason
from gptjax.report.telemetry import Stopwatch, Telemetry, UnreadMetrics
from gptjax.report.tensorboard import Profile
from gptjax.storage import orbax_io, ownership, rewind_log, step_folders
from gptjax.storage.checkpoint import Checkpoints, restore
from gptjax.storage.files import paths
from gptjax.storage.retention import in_period, rules_of
from gptjax.train.step import first_state, graph, init_state

DONE, STOPPED = 0, shutdown.STOPPED  # exit codes: finished; stopped and saved, to be started again


class Run(NamedTuple):
  """The constant state of a run."""
  config: Any
  workdir: Any   # Path or Url
  mesh: Any
  graphdef: Any
  mixture: Any  # mixtures.Mixture
  steps: int
  stop: Any      # agreement.Stop
  watchdog: Any  # Watchdog
  shapes: Any = None       # (TrainState, batch) of ShapeDtypeStruct
  rewinds: tuple = ()      # so far, see gptjax.pretrain.rewind


def pretrain(config, workdir, overrides=()):
  """Train to the end or until a stop is requested; resumes from the workdir's newest valid checkpoint.

  Args:
    config: unresolved; it is resolved in place.
    workdir: folder of the run.
    overrides: names of the fields that the command line sets, like 'train.steps'.

  Returns:
    Exit code: 0 or 75.

  Raises:
    ValueError: bad config or input, one line.
  """
  # Cheap checks come first; no file is written before all of them have passed.
  configs.check_fields(config)
  resume.restore_stored_fields(config, workdir, overrides)
  suite.parse_tasks(config.eval.tasks)
  source = run_weights.open_initial_weights(config, workdir, overrides)
  configs.resolve(config, workdir)
  configs.check(config)
  if config.checkpoint.export and (why := export_unsupported_reason(config)):
    raise InputError(f'config.checkpoint.export = True, but {why}: set it to False')
  processes.compare(configs.facts(config) | {'--workdir': paths.anywhere(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  memory.check(config, mesh)
  mixtures.require_corpora(config.data)
  orbax_io.check_supported(paths.location(workdir))
  with ownership.own_workdir(workdir):
    return run_owned(config, workdir, mesh, source, overrides)


def run_owned(config, workdir, mesh, source, overrides=()):
  """Run the job while this run owns the workdir; arguments and result as for `pretrain`.

  Args:
    source: of the initial weights, or None.
    overrides: as for `pretrain`.
  """
  processes.on_process_0(lambda: prepare_corpus(config, workdir, source and source.tokenizer), PREPARE_LIMIT)
  mixture = mixtures.open_mixture(*mixtures.folders_and_weights(config.data), verify=config.data.verify)
  if (line := mixtures.use_trained_vocabulary(mixture, config, overrides)) and jax.process_index() == 0:
    print(line, file=sys.stderr)
  mixtures.check_compatible(mixture, config)
  processes.compare({f'digest of corpus {number}': corpus.digest
                     for number, corpus in enumerate(mixture.train)})
  first_corpus = mixture.train[0]  # all corpora share one tokenizer
  tokenizer = paths.location(first_corpus.folder) / 'tokenizer'
  run_weights.check_tokenizer(config, source, first_corpus.tokenizer)
  # First: a field that differs is named before what differs in the export.
  initialize_workdir(config, workdir, mixture, source, tokenizer)
  with jax.set_mesh(mesh):
    export = run_weights.make_exporter(config, workdir, source, tokenizer)
  with (jax.set_mesh(mesh), processes.stop_signals() as stop,
        contextlib.closing(Watchdog(config.watchdog)) as watchdog):
    run = Run(config, paths.location(workdir), mesh, graph(config), mixture, n_steps(config, mixture), stop,
              watchdog, step_shapes(config, mesh))
    return _pretrain(run, source, export)


def _pretrain(run, source, export):
  """Train from the newest checkpoint to the end; after a loss spike, restart from an older one."""
  telemetry = Telemetry(run.workdir, run.steps, run.config.log.tensorboard, run.config.log.wandb)
  with contextlib.closing(telemetry):
    last = processes.on_process_0(lambda: max(step_folders.steps(run.workdir / 'checkpoints'), default=0))
    begin = functools.cache(functools.partial(begin_compiling, run, telemetry))
    if last < run.steps:
      begin()
    while True:
      try:
        return train_attempt(run, source, export, telemetry, begin)
      except rewind.Spike as spike:
        telemetry.log(f'{spike}: rewinding')
        processes.on_process_0(lambda spike=spike: rewind.record(run.config, run.workdir, spike))


def train_attempt(run, source, export, telemetry, begin):
  """Set up checkpoints and input, run the training loop, and log the summary.

  Args:
    begin: `begin_compiling` of the run, which compiles once: function without arguments.
  """
  config = run.config
  run = run._replace(rewinds=processes.on_process_0(lambda: rewind.apply_rewinds(run.workdir)))
  state = initial_state(run, source, telemetry)
  start = int(state.step)
  shutdown.exit_on_signal(shutdown.resume_message(start))
  telemetry.begin(start)
  saves = Checkpoints(run.workdir / 'checkpoints', rules_of(config.checkpoint),
                      {'corpus_digest': run.mixture.digest, 'versions': configs.versions(),
                       **rewind_log.facts(run.rewinds)}, export, telemetry.flush,
                      config.checkpoint.max_failed, config.storage.retry_seconds)
  try:
    console.log_start(run, telemetry, state, start)
    fetch_shards(run, start, telemetry)
    with contextlib.closing(device_batches(run, start)) as batches:
      state, finished = train_loop(run, state, batches, telemetry, saves, begin)
    telemetry.close_bar()
    if finished:
      shutdown.exit_on_signal('stopped before the final report; the last step is saved: run the same '
                              'command again to write the report')
      run.watchdog.progress(slow=True)
      console.log_summary(run, telemetry, state)
    else:
      telemetry.log(f'stopped after step {int(state.step)}, saved: run the same command again to resume')
    telemetry.write(int(state.step), telemetry.goodput(0.0))  # else the next start omits the time since then
    return DONE if finished else STOPPED
  except Exception as error:
    if not isinstance(error, rewind.Spike):
      control.fail(error, run.workdir)  # before closing, which waits for the other processes
    raise
  finally:
    saves.close()


def device_batches(run, start):
  """Return an iterator of (batch of each step from `start` on the devices, seconds waited for it)."""
  make_batch = functools.partial(train_batch, run)
  place = functools.partial(sharding.shard_batch, mesh=run.mesh)
  n, steps = run.config.data.prefetch, (start, run.steps)
  if cpu.reads_without_tensorflow():
    return pipeline.prefetch_to_device(pipeline.synchronous_batches(make_batch, *steps), place, n)
  return pipeline.prefetch_to_device(pipeline.batches(make_batch, *steps, prefetch=n, workers=2), place, 2)


def initial_state(run, source, telemetry):
  """Return the state of the newest valid checkpoint, else one with the weights of `source`, or a new one."""
  config, folder = run.config, run.workdir / 'checkpoints'
  shapes, _ = run.shapes
  restored = restore(folder, shapes, lambda line: print(line, file=sys.stderr))
  if restored and restored[1]['facts'].get('corpus_digest') != run.mixture.digest:
    raise InputError(f'{folder} holds checkpoints of a run on another corpus: use another workdir')
  if restored:
    return restored[0]
  jit = functools.partial(jax.jit, compiler_options=xla_presets.options('none', jax.default_backend()))
  if source:
    telemetry.log(f'initial weights from {source.folder}')
    return jit(functools.partial(first_state, config))(source.read(shapes.params))
  return jit(functools.partial(init_state, config))()


def begin_compiling(run, telemetry):
  """Begin to compile the train step, while this thread computes or restores the state.

  Returns:
    Function without arguments that waits for the compiled step, a function of (state, batch) that donates the
    state. Its first call logs the compilation.
  """
  started = time.monotonic()
  lowered = trace_step(run.config, run.mesh, run.steps, run.shapes).lower()
  options = xla_presets.options(run.config.xla_preset, jax.default_backend())
  work = background.submit(lambda: (lowered.compile(compiler_options=options), time.monotonic() - started))

  @functools.cache
  def compiled_step():
    telemetry.show_activity('compiling the step')
    compiled, seconds = work.result()
    telemetry.bar.set_postfix_str('')
    telemetry.log(f'compiled the step in {seconds:.1f} s')
    return compiled

  if not cpu.computes_while_compiling():
    compiled_step()  # an error is raised here: the other processes wait for this one
  return compiled_step


def train_loop(run, state, batches, telemetry, saves, begin):
  """Train from `state.step` to the last step, or until a stop is requested.

  Returns:
    (state, whether the last step was reached).

  Raises:
    rewind.Spike: the loss is a spike, after which the run rewinds.
  """
  start, evaluate, tasks = int(state.step), Evaluation(run), TaskEvaluator(run, telemetry.log)
  watch, step_fn = Stopwatch(), None

  def read(number, metrics):
    console.log_step(run, telemetry, watch, number, metrics)
    run.watchdog.progress()

  unread = UnreadMetrics(read)
  timer = processes.save_timer(run.config.checkpoint.every_minutes)
  evaluate_if_due(run, state, start, telemetry, evaluate, tasks)
  if checkpoint_due(run, start):
    save(state, start, telemetry, saves)
  with contextlib.closing(Profile(run.workdir, *run.config.log.profile_steps)) as profile:
    for step in range(start, run.steps):
      if run.stop.requested():
        break
      profile.update(step, state)
      batch, waited = next(batches)
      watch.input += waited
      if step_fn is None:
        step_fn = begin()()
        shutdown.defer_signal(processes.STOPPING)  # from here on, an exit would lose unsaved steps
        watch.restart()
      state, metrics = step_fn(state, batch)
      unread.add(step + 1, metrics)
      saving = timer.due(saves.started) or checkpoint_due(run, step + 1)
      if saving or evaluation_due(run, step + 1):
        unread.read_all()
        started = time.monotonic()
        evaluate_if_due(run, state, step + 1, telemetry, evaluate, tasks)
        if saving:
          save(state, step + 1, telemetry, saves)
        watch.excluded += time.monotonic() - started
      log_save(telemetry, saves.poll())
    unread.read_all()
    run.watchdog.progress(slow=True)
    profile.update(math.inf, state)
  step = int(state.step)
  stopped = run.stop.requested()  # an evaluation after the last step may have been interrupted too
  if stopped:
    saves.stopping = True
    save(state, step, telemetry, saves)
  log_save(telemetry, saves.wait(last=True))
  processes.on_process_0(lambda: None)  # wait for process 0 to write the manifest of the checkpoint
  return state, not stopped


def evaluation_due(run, step):
  """Whether an evaluation is due after this step."""
  return step == run.steps or in_period(step, run.config.eval.every_steps)


def checkpoint_due(run, step):
  """Whether a checkpoint is due after this step, whatever the time."""
  fields = run.config.checkpoint
  return (step == run.steps or in_period(step, fields.every_steps)
          or in_period(step, fields.keep_period))


def evaluate_if_due(run, state, step, telemetry, evaluate, tasks):
  """Compute the held-out loss and run the tasks, if due after `step` and not yet done."""
  run.watchdog.progress(slow=True)
  if not evaluation_due(run, step):
    return
  if any(run.mixture.held_out) and telemetry.value(step, 'eval/loss') is None:
    losses = evaluate(state.params)
    if losses:
      loss = run.mixture.held_out_mean(losses.values())
      perplexity = math.exp(min(loss, 700))
      parts = losses if len(run.mixture.names) > 1 else {}
      bits = loss / run.mixture.held_out_bytes_per_token() / math.log(2)
      telemetry.write(step, {'eval/loss': loss, 'eval/perplexity': perplexity, 'eval/bits_per_byte': bits,
                             **{f'eval/loss/{name}': part for name, part in parts.items()}})
      telemetry.log(f'step {step}  held-out loss {loss:.4f}  perplexity {perplexity:.2f}  '
                    f'bits/byte {bits:.3f}'
                    + ''.join(f'  {name} {part:.4f}' for name, part in parts.items()))
  if tasks and telemetry.value(step, 'eval/tasks') is None:
    scores = tasks(state.params)
    if scores is not None:
      telemetry.write(step, {'eval/tasks': len(scores), **scores})


def save(state, step, telemetry, saves):
  """Start to save a checkpoint, unless it exists."""
  log_save(telemetry, saves.wait())
  saves.save(state, step, telemetry.value(step, 'eval/loss'))


def log_save(telemetry, saved):
  if saved:
    step, seconds = saved
    telemetry.write(step, {'checkpoint/seconds': seconds})


def fetch_shards(run, start, telemetry):
  """Begin to copy the shards of corpora in buckets, in the order in which this host's batches read them."""
  windows = (reader.batch_windows(*batch_arguments(run, step)) for step in range(start, run.steps))
  remote_shards.fetch_ahead(run.mixture.train, run.mixture.held_out, windows, telemetry.log,
                            lambda: run.watchdog.progress(slow=True))


def train_batch(run, step):
  """Return this host's rows of the batch of `step`, {name: int32[rows, seq_len]} as `reader.batch`."""
  data = run.config.data
  return reader.batch(*batch_arguments(run, step), packing=data.packing,
                      restart_positions=data.restart_positions)


def batch_arguments(run, step):
  """Return the arguments of `reader.batch_windows` for this host's rows of the batch of `step`."""
  c, number = run.config, rewind_log.batch_number(run.rewinds, step)
  rows = sharding.local_rows(c.train.batch_size, run.mesh)
  return (run.mixture.train, run.mixture.weights, c.train.seed, number, c.train.batch_size, c.data.seq_len,
          c.data.cross_documents, rows, c.data.shift_windows)
