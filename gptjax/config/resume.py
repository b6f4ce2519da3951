"""Fields of a run that goes on: what its workdir has stored stands, unless something else is asked for.

A default may change between versions, and fields are added. A run must not change with them: a field that is
neither given on the command line nor set by the config file to something other than today's default keeps its
stored value; one that an older version did not store takes the value that does what that version did.
"""

import sys
from pathlib import Path

import jax

from gptjax import defaults
from gptjax.errors import InputError
from gptjax.files.run_config import as_tuple, read

# What a start chooses anew: devices, programs for them, and where its inputs are.
OF_THE_START = ('mesh.', 'attention.kernel', 'model.scan', 'compilation_cache', 'xla_preset', 'init_from',
                'eval.batch_size', 'eval.data_dir', 'data.corpus', 'data.mixture', 'data.source',
                'data.recipe', 'data.tfds_dir', 'data.tfds_download', 'finetune.data_dir',
                'finetune.lstm_from', 'finetune.predict')
# Fields that `config.resolve` fills in: to keep them is no news.
FILLED_IN = ('model.n_inner', 'model.compute_dtype', 'data.seq_len', 'train.microbatch_size')
# Fields of config.model that say how a run went, not what its model is.
OF_THE_RUN = ('init_std', 'wpe_init_std', 'scale_residual_init', 'scan', 'remat', 'compute_dtype')


def keep_stored_fields(config, workdir, overrides=()):
  """Sets, in place, the fields that a run in the workdir keeps, and prints those that would have differed.

  Args:
    config: as written.
    workdir: folder of the run; without a `config.json` nothing is done.
    overrides: names of the fields that the command line sets, like 'train.steps'.

  Raises:
    InputError: the workdir's `config.json` is damaged, or of another job.
  """
  path = Path(workdir) / 'config.json'
  if not path.exists():
    return
  stored, kept = read(path)[0], []
  if stored['job'] != config.job:  # which code runs has been decided by now
    raise InputError(f'{workdir} holds a run with config.job = {stored["job"]!r}, not {config.job!r}: use '
                     'its config file, or another workdir')
  for name, field in defaults.declared().items():
    section, _, leaf = name.rpartition('.')
    place = config
    for part in filter(None, section.split('.')):
      place = getattr(place, part)
    value = getattr(place, leaf)
    brought = config.init_from and (name == 'data.tokenizer' or is_weights_field(name))
    if name in overrides or name.startswith(OF_THE_START) or (value != field.default and not brought):
      continue
    before = as_tuple(stored[name])
    if before != value:
      setattr(place, leaf, before)
      kept += [f'config.{name} = {before!r}'] * (name not in FILLED_IN)
  if kept and jax.process_index() == 0:
    print(f'kept from {path}: {", ".join(kept)}', file=sys.stderr)


def is_weights_field(name):
  """Whether a field, like 'model.n_layer', is part of what weights were made for."""
  section, _, leaf = name.rpartition('.')
  return section == 'model' and leaf not in (*OF_THE_RUN, 'dropout')  # training chooses what it drops








