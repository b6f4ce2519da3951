"""From the config as written to the config as run: filled in, checked, and kept in the workdir."""

import difflib
import hashlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path

import jax

import gptjax
from gptjax import atomic, attention, compiler, defaults, kernels, literal_path, model, optimizer
from gptjax.errors import InputError

JOBS = ('pretrain', 'finetune', 'evaluate')

# What may differ when a run goes on in its workdir: where it runs and what it tells, not what it is.
MAY_CHANGE = ('mesh.', 'log.', 'checkpoint.', 'watchdog.', 'attention.kernel', 'compilation_cache',
              'xla_preset', 'init_from', 'model.scan', 'model.remat', 'train.microbatch_size',
              'train.max_skipped', 'train.rewind.',
              'eval.every_steps', 'eval.batch_size', 'eval.ngrams', 'eval.tasks', 'eval.data_dir',
              'data.corpus', 'data.mixture', 'data.source', 'data.tfds_dir', 'data.verify',
              'data.prefetch', 'loss.chunk', 'finetune.data_dir', 'finetune.predict')


def resolve(config, workdir, device=None):
  """Fills in, in place, fields that say "0: ...", "'': ..." or "not set"; `train.steps` waits for the corpus.

  Args:
    config: as written.
    workdir: folder of the run.
    device: one of those that it is for; None: those that are here.
  """
  c, device = config, device or jax.devices()[0]
  if c.model.compute_dtype == 'auto':
    c.model.compute_dtype = 'float32' if device.platform == 'cpu' else 'bfloat16'
  if c.model.scan is None:
    c.model.scan = scanned(c.model.remat, device)
  c.model.n_inner = model.inner_width(c.model)
  if not c.data.mixture:
    c.data.corpus = c.data.corpus or str(Path(workdir) / 'corpus')
  c.data.seq_len = c.data.seq_len or c.model.n_ctx
  if c.attention.kernel == 'auto':
    c.attention.kernel = kernels.best(c, device)
  c.train.microbatch_size = c.train.microbatch_size or c.train.batch_size
  if c.job == 'evaluate':
    tokens = 1024 if device.platform == 'cpu' else 8192
    c.eval.batch_size = c.eval.batch_size or jax.device_count() * max(1, tokens // c.model.n_ctx)
  c.eval.batch_size = c.eval.batch_size or c.train.microbatch_size


def scanned(remat, device):
  """Whether layers are better scanned than unrolled: docs/speed.md has what a scan copies in and out."""
  return device.platform == 'tpu' or remat == 'full'


def check(config, device=None):
  """Refuses a config that cannot be run (ValueError with the field, its value and what to do).

  Args:
    config: resolved.
    device: as for `resolve`.
  """
  c = config
  for field, value, allowed in (
      ('job', c.job, JOBS),
      ('model.architecture', c.model.architecture, ('transformer', 'lstm')),
      ('model.norm', c.model.norm, ('before', 'after')),
      ('model.remat', c.model.remat, model.REMAT),
      ('model.activation_function', c.model.activation_function, tuple(model.ACTIVATIONS)),
      ('model.compute_dtype', c.model.compute_dtype, ('float32', 'bfloat16')),
      ('optimizer.name', c.optimizer.name, optimizer.OPTIMIZERS),
      ('optimizer.schedule', c.optimizer.schedule, optimizer.SCHEDULES)):
    if value not in allowed:
      raise InputError(f'config.{field} = {value!r} is not one of {", ".join(allowed)}')
  for field, value in flat(c).items():
    if value is None:
      raise InputError(f'config.{field} has no value: give one')
  for field in ('model.n_layer', 'model.n_head', 'model.n_embd', 'model.n_ctx', 'model.n_vocab',
                'model.n_inner', 'model.pad_vocab_to', 'train.batch_size', 'train.microbatch_size',
                'data.seq_len', 'data.prefetch', 'eval.batch_size', 'log.every_steps', 'checkpoint.keep',
                'train.max_skipped'):
    _require(flat(c)[field] >= 1, f'config.{field} = {flat(c)[field]} must be at least 1')
  for field in ('train.steps', 'train.epochs', 'eval.steps', 'eval.limit', 'optimizer.warmup_steps',
                'loss.chunk', 'optimizer.clip_norm', 'checkpoint.keep_best', 'log.sample_tokens',
                'watchdog.step_timeout', 'watchdog.compile_timeout', 'train.rewind.threshold',
                'train.rewind.steps_back', 'train.rewind.skip_batches'):
    _require(flat(c)[field] >= 0, f'config.{field} = {flat(c)[field]} must not be negative')
  _require(c.model.layer_norm_epsilon > 0,
           f'config.model.layer_norm_epsilon = {c.model.layer_norm_epsilon} must be positive')
  _require(0 <= c.model.dropout < 1, f'config.model.dropout = {c.model.dropout} must lie in [0, 1)')
  _require(c.model.n_embd % c.model.n_head == 0,
           f'config.model.n_embd = {c.model.n_embd} cannot be divided by config.model.n_head = '
           f'{c.model.n_head}: change one of them')
  _require(c.data.seq_len <= c.model.n_ctx, f'config.data.seq_len = {c.data.seq_len} is longer than '
           f'config.model.n_ctx = {c.model.n_ctx}: shorten it')
  _require(c.train.batch_size % c.train.microbatch_size == 0,
           f'config.train.batch_size = {c.train.batch_size} cannot be divided by '
           f'config.train.microbatch_size = {c.train.microbatch_size}: change one of them')
  _require(c.job != 'pretrain' or c.train.steps > 0 or c.train.epochs > 0,
           'set config.train.steps or config.train.epochs: one of them must be positive')
  asked = c.log.profile_steps
  _require(len(asked) == 2 and all(isinstance(n, int) and n >= 0 for n in asked),
           f'config.log.profile_steps = {tuple(asked)} must be two steps, (first, end)')
  kind, _, size = c.data.tokenizer.partition(':')
  _require(kind != 'train-bpe' or size == str(c.model.n_vocab),
           f'config.data.tokenizer = {c.data.tokenizer!r} makes another vocabulary than config.model.n_vocab '
           f'= {c.model.n_vocab}: give both the same number')
  _check_mixture(c.data)
  _check_rewind(c)
  device = device or jax.devices()[0]
  attention.check(c, device)
  compiler.check(c.xla_preset, device.platform)


def _check_mixture(data):
  pairs = data.mixture
  _require(all(isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
               and isinstance(pair[1], int | float) for pair in pairs),
           f'config.data.mixture = {pairs!r} must be pairs of folder and weight, '
           "(('FOLDER', 0.7), ('FOLDER', 0.3))")
  for field in ('corpus', 'source') if pairs else ():
    _require(not data[field], f'config.data.mixture and config.data.{field} = {data[field]!r} both say what '
             f'to read: leave one out (--config.data.{field}=)')


def _check_rewind(c):
  if c.train.rewind.threshold > 0:
    every, keep, back = c.checkpoint.every_steps, c.checkpoint.keep, c.train.rewind.steps_back
    _require(every > 0, 'config.train.rewind goes back to a checkpoint: set config.checkpoint.every_steps')
    _require((keep - 1) * every >= back,
             f'config.train.rewind.steps_back = {back} is further than config.checkpoint.keep = {keep} '
             f'checkpoints every {every} steps reach: keep {-(-back // every) + 1}')


def unknown_field(arguments):
  """Names the first --config.FIELD that `gptjax/defaults.py` has not, and the nearest; '': all are known."""
  fields = list(flat(defaults.get_config()))
  for argument in arguments:
    name = argument.partition('=')[0].lstrip('-').removeprefix('config.')
    if argument.lstrip('-').startswith('config.') and name not in fields:
      nearest = difflib.get_close_matches(name, fields, 1, cutoff=0)[0]
      return f'config.{name} is not a field: did you mean config.{nearest}?'
  return ''


def _require(holds, message):
  if not holds:
    raise InputError(message)


def flat(config):
  """{'model.n_layer': 12, ...}; takes a ConfigDict or nested dicts."""
  values = {}
  for key, value in config.items():
    if hasattr(value, 'items'):
      values.update({f'{key}.{inner}': v for inner, v in flat(value).items()})
    else:
      values[key] = list(value) if isinstance(value, tuple) else value
  return values


def versions():
  """{package: version} of what decides the numbers of a run."""
  others = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {'gptjax': gptjax.__version__, **{name: metadata.version(name) for name in others}}


def code_digest():
  """16 digits that change with any file of gptjax."""
  root, code = Path(gptjax.__file__).parent, hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    code.update(f'{path.relative_to(root)} '.encode() + path.read_bytes())
  return code.hexdigest()[:16]


def facts(config):
  """{field: value} of what must be the same in all processes of a run, JSON values."""
  flags = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'JAX_ENABLE_X64', 'JAX_DEFAULT_MATMUL_PRECISION',
           'JAX_DISABLE_MOST_OPTIMIZATIONS')
  return {
    'code of gptjax, its digest': code_digest(),
    **{f'version of {name}': version for name, version in versions().items()},
    **{f'environment variable {name}': os.environ.get(name, '') for name in flags},
    'kind of its devices': sorted({device.device_kind for device in jax.local_devices()}),
    'number of its devices': jax.local_device_count(),
    **{f'config.{field}': value for field, value in flat(config).items()}}


def claim(config, workdir, corpus_digest):
  """Writes `config.json`, or checks that the workdir holds a run of the same config.

  Raises:
    ValueError: the workdir holds another run's config, or cannot be written to.
  """
  path = Path(workdir) / 'config.json'
  if path.exists():
    _same_run(path, config, corpus_digest)
  else:
    run = {'config': config.to_dict(), 'corpus_digest': corpus_digest, 'versions': versions(),
           'devices': [jax.devices()[0].device_kind, jax.device_count()], 'command': sys.orig_argv}
    atomic.write(path, json.dumps(run, indent=1, sort_keys=True))


def _same_run(path, config, corpus_digest):
  try:
    stored = json.loads(path.read_text())
    before, digest = flat(stored['config']), stored['corpus_digest']
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path} is not a config.json of gptjax ({error}): use another workdir') from None
  now = flat(config)
  for field in sorted(before.keys() | now.keys()):
    same = before.get(field) == now.get(field)
    other_weights = field == 'init_from' and config.job == 'finetune'
    if not same and (other_weights or not field.startswith(MAY_CHANGE)):
      raise InputError(
        f'{path.parent} holds a run with config.{field} = {before.get(field)!r}, not '
        f'{now.get(field)!r}: use another workdir, or the same value')
  if digest != corpus_digest:
    raise InputError(f'{path.parent} holds a run on another corpus, or on several by other weights (digest '
                     f'{digest[:12]}, not {corpus_digest[:12]}): use another workdir')


def make_workdir(workdir):
  """Creates the workdir and tries to write in it (ValueError if that fails)."""
  try:
    literal_path.check(workdir)
    atomic.make_folders(workdir)
    probe = Path(workdir) / f'.probe-{os.getpid()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise InputError(f'workdir {workdir} is not writable ({error.strerror}): use another') from None
