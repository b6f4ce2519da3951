"""Config fields of a resumed run: stored values are restored unless fields are set explicitly.

Versions can change defaults and add fields, which must not change an existing run. A field keeps its stored
value unless the command line sets it, or the config file sets it to a value other than the current default. A
field that an older version did not store takes the value that reproduces that version's behaviour.
"""

import sys

import jax

from gptjax import defaults
from gptjax.errors import InputError
from gptjax.storage.files import access, paths
from gptjax.storage.files.run_config import as_tuple, read

# Fields that are not restored: mesh, kernels, compilation, evaluation batch size, input paths, predictions,
# and how this machine uses buckets, which is set before the workdir is read.
NOT_RESTORED = ('mesh.', 'attention.kernel', 'model.scan', 'compilation_cache', 'xla_preset', 'init_from',
                'eval.batch_size', 'eval.data_dir', 'data.corpus', 'data.mixture', 'data.source',
                'data.recipe', 'data.tfds_dir', 'data.tfds_download', 'data.cache_', 'storage.',
                'finetune.data_dir', 'finetune.lstm_from', 'finetune.predict', 'sweep.')
# Fields that `config.resolve` sets; restoring them is not reported.
RESOLVED_FIELDS = ('model.n_inner', 'model.compute_dtype', 'data.seq_len', 'train.microbatch_size')
# Fields of config.model that do not change the weights' shapes or meaning.
NOT_WEIGHTS_FIELDS = ('init_std', 'wpe_init_std', 'scale_residual_init', 'scan', 'remat', 'compute_dtype')


def restore_stored_fields(config, workdir, overrides=()):
  """Set the fields of a config to the values stored in the workdir, and print those that change.

  Fields that an evaluation reads from the weights again are not printed, because no user has set them.

  Args:
    config: with the values of the config file and the command line, before `resolve`.
    workdir: folder of the run; without a `config.json` the function does nothing.
    overrides: names of the fields that the command line sets, like 'train.steps'.

  Raises:
    InputError: the workdir's `config.json` is damaged, or of another job.
  """
  path = paths.location(workdir) / 'config.json'
  if not access.is_file(path):
    return
  stored, restored = read(path)[0], []
  if stored['job'] != config.job:  # the job was chosen before this call, so a stored one would have no effect
    raise InputError(f'{workdir} has a run with config.job = {stored["job"]!r}, not {config.job!r}: use '
                     'its config file, or another workdir')
  for name, field in defaults.declared().items():
    section, _, leaf = name.rpartition('.')
    section_config = config
    for part in filter(None, section.split('.')):
      section_config = getattr(section_config, part)
    value = getattr(section_config, leaf)
    from_weights = config.init_from and (name == 'data.tokenizer' or is_weights_field(name))
    if name in overrides or name.startswith(NOT_RESTORED) or (value != field.default and not from_weights):
      continue
    stored_value = as_tuple(stored[name])
    if stored_value != value:
      setattr(section_config, leaf, stored_value)
      of_weights = is_weights_field(name) or name in ('model.dropout', 'model.embedding_dropout')
      read_again = config.job == 'evaluate' and of_weights
      if name not in RESOLVED_FIELDS and not read_again:
        restored.append(f'config.{name} = {stored_value!r}')
  if restored and jax.process_index() == 0:
    print(f'restored from {path}: {", ".join(restored)}', file=sys.stderr)


def is_weights_field(name):
  """Whether a field, like 'model.n_layer', is a property of weights."""
  section, _, leaf = name.rpartition('.')
  # A run may use another dropout than its initial weights had.
  return section == 'model' and leaf not in (*NOT_WEIGHTS_FIELDS, 'dropout', 'embedding_dropout')
