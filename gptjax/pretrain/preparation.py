"""Preparation of a pretraining run: its corpus, its number of steps, and the first files in its workdir."""

import copy
import math

from gptjax.command import shutdown, streams
from gptjax.config import resolve as configs
from gptjax.data.corpus import reader
from gptjax.domains import LARGEST
from gptjax.errors import InputError
from gptjax.parallel import processes
from gptjax.pretrained import run_weights
from gptjax.storage.files import access, paths

PREPARE_LIMIT = 24 * 3600  # seconds that the other processes wait for process 0 to prepare a corpus


def n_steps(config, mixture):
  """Return the number of steps; an epoch has as many sequences as all corpora together have windows."""
  windows = sum(reader.n_windows(corpus, config.data.seq_len, config.data.cross_documents)
                for corpus in mixture.train)
  steps = config.train.steps or math.ceil(config.train.epochs * windows / config.train.batch_size)
  if steps > LARGEST:
    raise InputError(f'config.train.epochs = {config.train.epochs} gives {steps:,} steps, more than '
                     f'{LARGEST}: lower it')
  return steps


def prepare_corpus(config, workdir, tokenizer=None):
  """Prepare the corpus from `config.data.source`, unless it exists.

  Args:
    config: resolved.
    workdir: folder of the run.
    tokenizer: of the initial weights, which takes precedence over `config.data.tokenizer`; or None.
  """
  data = config.data
  if not data.source or access.is_file(paths.parsed(data.corpus) / 'manifest.json'):
    return
  from gptjax.data.prepare import prepare
  streams.log(f'{data.corpus} is not a complete corpus: it is prepared from data.source = {data.source}')
  configs.make_workdir(workdir)
  if tokenizer:
    run_weights.save_tokenizer(tokenizer, workdir)
  spec = str(paths.parsed(workdir) / 'tokenizer') if tokenizer else data.tokenizer
  shutdown.exit_on_signal('stopped while the corpus is prepared: run the same command again to continue '
                          'after the parts that are complete')
  prepare([data.source], spec, data.corpus, validation_fraction=data.validation_fraction, clean='',
          workers=1, tfds_dir=data.tfds_dir, on_error='stop', seq_len=data.seq_len,
          tfds_download=data.tfds_download, special_tokens=data.special_tokens)
  shutdown.exit_on_signal('stopped before the first step, the corpus is prepared: run the same '
                          'command again to start the run')


def initialize_workdir(config, workdir, mixture, source, tokenizer):
  """Write the tokenizer and config.json into the workdir, on process 0.

  Raises:
    ValueError: see `config.resolve.write_or_check_config`; or the processes do not see the same folder.
  """
  def n_steps_of(steps, epochs):
    changed = copy.deepcopy(config)
    changed.train.update(dict(steps=steps, epochs=epochs))
    return n_steps(changed, mixture)
  def write_files():
    configs.make_workdir(workdir)
    # Before config.json, see `save_tokenizer`.
    begin_of_text = mixture.train[0].tokenizer.get('begin_of_text')
    run_weights.save_run_tokenizer(source, tokenizer, workdir, begin_of_text)
    configs.write_or_check_config(config, workdir, mixture.digest, n_steps_of)
    return access.read(paths.location(workdir) / 'config.json').decode()
  written, path = processes.on_process_0(write_files), paths.location(workdir) / 'config.json'
  if not access.is_file(path) or access.read(path).decode() != written:
    raise InputError(f'{path} is not the file that process 0 wrote: --workdir must be a folder that '
                     'all hosts share')
