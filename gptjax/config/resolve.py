"""Resolve a config: fill in derived fields, check it, and store it in the workdir."""

import functools
import hashlib
import sys
from importlib import metadata
from pathlib import Path

import jax

import gptjax
from gptjax import defaults, domains
from gptjax.config import extension
from gptjax.errors import InputError
from gptjax.kernels import fused, xla_presets
from gptjax.model import attention, parameters
from gptjax.parallel import jax_settings
from gptjax.storage.files import access, atomic, hub_names, paths, private_folder, records, run_config
from gptjax.storage.files.paths import Url
from gptjax.storage.files.run_config import flat
from gptjax.text.redacted import redacted_values

WITHOUT_CACHE = 'disable it by --config.compilation_cache='
# Fields that are paths, and the function that makes each absolute.
PATHS = {name: (hub_names.absolute if field.domain.hub else paths.anywhere if field.domain.bucket else
                paths.local)
         for name, field in defaults.declared().items() if field.domain.path}
# Those that may differ between hosts: the content of the folders is compared by its digest.
HOST_PATHS = ('compilation_cache', 'data.corpus', 'data.mixture', 'data.tfds_dir', 'eval.data_dir',
              'finetune.data_dir', 'data.cache_dir')

# Fields that may change when a run is resumed: placement, logging and paths.
MAY_CHANGE = ('mesh.', 'log.', 'checkpoint.', 'storage.', 'watchdog.', 'attention.kernel',
              'compilation_cache', 'xla_preset', 'init_from', 'model.scan', 'model.remat',
              'train.microbatch_size', 'train.max_skipped', 'train.rewind.',
              'eval.every_steps', 'eval.batch_size', 'eval.ngrams', 'eval.tasks', 'eval.data_dir',
              'data.corpus', 'data.mixture', 'data.source', 'data.recipe', 'data.tfds_dir',
              'data.tfds_download', 'data.verify', 'data.prefetch', 'data.cache_', 'loss.chunk',
              'data.reference', 'finetune.data_dir', 'finetune.predict', 'sweep.')
# Options that config.model.architecture = lstm does not have. Others that it ignores, such as n_head, are not
# named: they come with the config of the Transformer that it is compared with.
TRANSFORMER_ONLY = ('n_kv_head', 'head_size', 'positions', 'norm_type', 'qk_norm', 'bias', 'mlp',
                    'sliding_window', 'tie_word_embeddings')


def make_paths_absolute(config, overrides=()):
  """Make the paths of a config absolute, in place; see `gptjax.storage.files.paths`.

  Args:
    config: unresolved.
    overrides: names of the fields that the command line sets. If `data.mixture` is one of them, it replaces
      the corpus and the source of the config file; `data.source` replaces its corpus, and what it says of
      that text.
  """
  replaced = {'data.corpus', 'data.source'} if 'data.mixture' in overrides else set()
  if 'data.source' in overrides and config.data.source:
    replaced |= {'data.corpus', 'data.recipe', 'data.recipe_cost', 'data.reference'}
  for field in replaced - set(overrides):
    config.data[field.partition('.')[2]] = ''
  for field, absolute in PATHS.items():
    section, _, name = field.rpartition('.')
    parent = config[section] if section else config
    parent[name] = absolute(parent[name], f'config.{field} =')
  _check_mixture(config.data)
  config.data.mixture = tuple((paths.anywhere(folder, 'config.data.mixture:'), weight)
                              for folder, weight in config.data.mixture)


def check_fields(config):
  """Check that each field is in its domain, which `gptjax/defaults.py` declares.

  Args:
    config: unresolved or resolved.

  Raises:
    InputError: a field is not; the message has its name, its value and the domain.
  """
  for name, field in defaults.declared().items():
    if why := domains.violation(field.domain, value_of(config, name)):
      raise InputError(f'config.{name} {why}')


def value_of(config, name):
  """Return the value of a field like 'model.n_layer'."""
  return functools.reduce(getattr, name.split('.'), config)


def resolve(config, workdir, device=None):
  """Fill in, in place, the fields whose meaning is "0: ...", "'': ..." or "not set", except `train.steps`.

  `train.steps` depends on the corpus. `model.n_vocab` becomes N with the tokenizer `train-bpe:N`, unless it
  is set or comes from initial weights.

  Args:
    config: unresolved.
    workdir: folder of the run.
    device: one of the devices of the run; None: one of this machine.

  Raises:
    InputError: as `check_fields`.
  """
  check_fields(config)
  c, device = config, device or jax.devices()[0]
  if c.model.compute_dtype == 'auto':
    c.model.compute_dtype = 'float32' if device.platform == 'cpu' else 'bfloat16'
  if c.model.scan is None:
    c.model.scan = should_scan(c.model.remat, device)
  kind, _, size = c.data.tokenizer.partition(':')
  unset = c.model.n_vocab == defaults.declared()['model.n_vocab'].default and not c.init_from
  if kind == 'train-bpe' and size.isdecimal() and len(size) < 10 and unset:
    c.model.n_vocab = int(size)
  c.model.n_inner = parameters.inner_width(c.model)
  if not c.data.mixture:
    c.data.corpus = c.data.corpus or str(paths.location(workdir) / 'corpus')
  c.data.seq_len = c.data.seq_len or c.model.n_ctx
  if c.attention.kernel == 'auto':
    c.attention.kernel = fused.best(c, device)
  c.train.microbatch_size = c.train.microbatch_size or c.train.batch_size
  if c.job == 'evaluate':
    c.eval.batch_size = c.eval.batch_size or evaluation_batch_size(c.eval.n_ctx or c.model.n_ctx, device)
  c.eval.batch_size = c.eval.batch_size or c.train.microbatch_size


def evaluation_batch_size(n_ctx, device):
  """Return the default number of sequences of n_ctx tokens per batch of an evaluation, over all devices."""
  return jax.device_count() * max(1, evaluation_tokens(device.platform) // n_ctx)


def evaluation_tokens(platform):
  """Return the tokens in a batch of an evaluation that keep a device of this platform busy."""
  return 1024 if platform == 'cpu' else 8192


def should_scan(remat, device):
  """Whether to scan layers rather than unroll them; docs/explanation/speed_log.md has what scans cost."""
  return device.platform == 'tpu' or remat == 'full'


def check(config, device=None):
  """Check that the fields of a config fit each other and the devices (ValueError with one line).

  Args:
    config: resolved.
    device: as for `resolve`.
  """
  c = config
  (_check_lstm if c.model.architecture == 'lstm' else _check_heads)(c.model)
  _require(c.data.seq_len <= c.model.n_ctx, f'config.data.seq_len = {c.data.seq_len} is longer than '
           f'config.model.n_ctx = {c.model.n_ctx}: shorten it')
  _require(c.eval.n_ctx <= c.model.n_ctx, f'config.eval.n_ctx = {c.eval.n_ctx} is longer than the context '
           f'of the model, {c.model.n_ctx}: lower it')
  _require(c.train.batch_size % c.train.microbatch_size == 0,
           f'config.train.batch_size = {c.train.batch_size} cannot be divided by '
           f'config.train.microbatch_size = {c.train.microbatch_size}: change one of them')
  _require(c.job != 'pretrain' or c.train.steps > 0 or c.train.epochs > 0,
           'set config.train.steps or config.train.epochs: one of them must be positive, '
           '--config.train.steps=1000 for instance')
  kind, _, size = c.data.tokenizer.partition(':')
  _require(kind != 'train-bpe' or size == str(c.model.n_vocab),
           f'config.data.tokenizer = {c.data.tokenizer!r} has another vocabulary size than '
           f'config.model.n_vocab = {c.model.n_vocab}: set both to the same number')
  _require(kind != 'train-char' or not size,
           f'config.data.tokenizer = {c.data.tokenizer!r}: the text determines the number of entries: write '
           'train-char')
  _require(not c.eval.data_dir or access.is_folder(paths.location(c.eval.data_dir)),
           f'config.eval.data_dir = {c.eval.data_dir!r} is not a folder')
  _require(c.checkpoint.keep_period or not c.checkpoint.keep_period_weights_only,
           'config.checkpoint.keep_period_weights_only = True needs a period: set '
           'config.checkpoint.keep_period')
  _check_mixture(c.data)
  _check_packing(c)
  _check_rewind(c)
  device = device or jax.devices()[0]
  attention.check(c, device)
  xla_presets.check(c.xla_preset, device.platform)


def _check_heads(c):
  _require(c.head_size or c.n_embd % c.n_head == 0, f'config.model.n_embd = {c.n_embd} cannot be divided by '
           f'config.model.n_head = {c.n_head}: change one of them, or set config.model.head_size')
  _require(c.n_head % parameters.n_kv_head(c) == 0, f'config.model.n_head = {c.n_head} cannot be divided by '
           f'config.model.n_kv_head = {c.n_kv_head}: change one of them')
  size = parameters.head_size(c)
  _require(c.positions == 'learned' or size % 2 == 0, f'the head size {size} is odd, and '
           'config.model.positions = rotary rotates pairs: change config.model.head_size, n_embd or n_head')


def _check_lstm(c):
  for name in TRANSFORMER_ONLY:
    default = defaults.declared()[f'model.{name}'].default
    _require(c[name] == default, f'config.model.{name} = {c[name]} is an option of the Transformer, and '
             f'config.model.architecture = lstm: set it to {default}')


def _check_mixture(data):
  for field in ('corpus', 'source') if data.mixture else ():
    _require(not data[field], f'config.data.mixture and config.data.{field} = {data[field]!r} are both '
             f'set: unset one of them (--config.data.{field}=)')


def _check_packing(c):
  _require(not c.data.packing or c.job in ('pretrain', 'sweep'), 'config.data.packing = True is for '
           f'pretraining, and config.job = {c.job}: set it to False')
  _require(c.data.packing or not c.data.restart_positions, 'config.data.restart_positions = True needs '
           'documents that share a sequence and are kept apart: set config.data.packing = True')
  _require(not c.data.packing or c.data.cross_documents, 'config.data.packing = True packs several documents '
           'into a sequence, and config.data.cross_documents = False allows one: set packing to False, or '
           'cross_documents to True')
  _require(not c.data.packing or c.model.architecture == 'transformer', 'config.data.packing = True keeps '
           f'documents apart in attention, which config.model.architecture = {c.model.architecture} does not '
           'have: set packing to False')


def _check_rewind(c):
  fields, back = c.checkpoint, c.train.rewind.steps_back
  kept_for_good = fields.keep_period > 0 and not fields.keep_period_weights_only
  if c.train.rewind.threshold == 0 or kept_for_good:
    return
  _require(fields.every_steps > 0, 'config.train.rewind needs checkpoints: set config.checkpoint.every_steps')
  _require(fields.every_minutes == 0, 'config.train.rewind needs checkpoints that reach back for a number of '
           f'steps, but those of config.checkpoint.every_minutes = {fields.every_minutes:g} replace older '
           'ones: set it to 0, or config.checkpoint.keep_period')
  further = fields.keep_period % fields.every_steps > 0  # checkpoints between those of every_steps
  enough = 1 + -(-back // fields.every_steps) + further * -(-back // max(fields.keep_period, 1))
  _require(fields.keep >= enough,
           f'config.train.rewind.steps_back = {back} is further than config.checkpoint.keep = {fields.keep} '
           f'checkpoints every {fields.every_steps} steps reach: keep {enough}')


def _require(condition, message):
  if not condition:
    raise InputError(message)


def versions():
  """Return {package: version} of the packages that determine the results of a run."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {'gptjax': gptjax.__version__, **{name: metadata.version(name) for name in packages}}


def code_digest():
  """Return a digest, 16 hex digits, of all files of gptjax."""
  root, code = Path(gptjax.__file__).parent, hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    code.update(f'{path.relative_to(root)} '.encode() + path.read_bytes())
  return code.hexdigest()[:16]


def facts(config):
  """Return {field: JSON value} of everything that must be the same in all processes of a run.

  Settings of JAX are compared earlier, see `gptjax.parallel.jax_settings`.
  """
  return {
    'digest of the code of gptjax': code_digest(),
    **{f'version of {name}': version for name, version in versions().items()},
    'device kind': sorted({device.device_kind for device in jax.local_devices()}),
    'number of local devices': jax.local_device_count(),
    **{f'config.{field}': redacted_values(value) for field, value in flat(config).items()
       if field not in HOST_PATHS}}


def write_or_check_config(config, workdir, corpus_digest, n_steps=None):
  """Write `config.json`, or check that the workdir has this run or one that it extends; prints the path.

  Args:
    config: resolved.
    workdir: of the run.
    corpus_digest: of the training data.
    n_steps: as for `extension.check`.

  Raises:
    ValueError: the workdir has another run, or cannot be written to.
  """
  path = paths.location(workdir) / 'config.json'
  run = {'config': config.to_dict(), 'corpus_digest': corpus_digest, 'versions': versions(),
         'devices': [jax.devices()[0].device_kind, jax.device_count()],
         'settings': jax_settings.effective(), 'command': sys.orig_argv}
  if access.is_file(path) or not access.create(path, records.text(redacted_values(run))):
    _check_same_run(path, config, corpus_digest, n_steps)
  print(f'workdir {workdir}', file=sys.stderr)


def _check_same_run(path, config, corpus_digest, n_steps):
  """Raise InputError unless config.json has this run or one that it extends, which is recorded."""
  before, digest = run_config.read(path)
  now = flat(config)
  grown = extension.check(before, now, config, path.parent, n_steps)
  for field in sorted((before.keys() | now.keys()) - grown.keys()):
    stored = before.get(field)
    if field in PATHS and stored:  # older versions stored them as written
      stored = PATHS[field](stored)
    same = redacted_values(stored) == redacted_values(now.get(field))
    other_weights = field == 'init_from' and config.job == 'finetune'
    if not same and (other_weights or not field.startswith(MAY_CHANGE)):
      raise InputError(
        f'{path.parent} has a run with config.{field} = {before.get(field)!r}, not '
        f'{now.get(field)!r}: use another workdir, or the same value')
  if digest != corpus_digest:
    raise InputError(f'{path.parent} has a run on another corpus, or a mixture with other weights (digest '
                     f'{digest[:12]}, not {corpus_digest[:12]}): use another workdir')
  jax_settings.report_changes(path, lambda line: print(line, file=sys.stderr))
  if grown:
    extension.record(path, grown, versions())


def check_cache(folder):
  """Create the compilation cache ('' is none).

  Raises:
    InputError: it cannot be written, or another user owns it or can write to it.
  """
  if not folder:
    return
  try:
    private_folder.make(folder, 'config.compilation_cache', WITHOUT_CACHE)
    why = _unwritable(folder)
  except OSError as error:
    why = error.strerror
  if why:
    raise InputError(f'config.compilation_cache = {folder!r} is not writable ({why}): use another folder, '
                     f'or {WITHOUT_CACHE}')


def make_workdir(workdir):
  """Create the workdir, here or in a bucket, and check that it is writable (ValueError if not)."""
  workdir = paths.location(workdir)
  if isinstance(workdir, Url):
    return  # the first object that is put there shows it
  if why := _unwritable(workdir):
    raise InputError(f'workdir {workdir} is not writable ({why}): use another')


def _unwritable(folder):
  """Create a folder; returns why it cannot be created or written, '' if it can."""
  try:
    atomic.make_folders(folder)
    probe = atomic.new_name(Path(folder) / '.probe')
    probe.touch(exist_ok=False)
    probe.unlink()
  except OSError as error:
    return error.strerror
  return ''
