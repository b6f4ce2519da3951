"""What a run has to do with weights of others: it may start from some, and give its own away."""

import shutil
from pathlib import Path

import jax
from flax import nnx

from gptjax import atomic
from gptjax.checkpoint import completed
from gptjax.data import tokenizers
from gptjax.errors import InputError
from gptjax.pretrained import layout, open_source
from gptjax.pretrained.export import checkpoint_exporter
from gptjax.train import graph


def first(config, workdir, digest):
  """The layout.Source that `config.init_from` names; None if the run does not start there.

  Args:
    config: the resolved config.
    workdir: of the run; one of its own checkpoints goes first.
    digest: of the tokenizer with which the corpus was made.

  Raises:
    ValueError: the weights cannot be read, or were made for another model or tokenizer: names the first field
      that differs, with both values.
  """
  if not config.init_from or completed(Path(workdir) / 'checkpoints'):
    return None
  source = open_source(config.init_from)
  for name, value in source.fields.items():
    mine = getattr(config.model, name)
    if name != 'dropout' and mine != value:  # what to drop in training is the run's own choice
      raise InputError(f'config.model.{name} = {mine!r}, but the weights of config.init_from = '
                       f'{config.init_from!r} have {name} = {value!r}: set --config.model.{name}={value}')
  if source.tokenizer and source.tokenizer.digest != digest:
    raise InputError(f'config.init_from = {config.init_from!r} has the tokenizer {source.tokenizer.name} '
                     f'(digest {source.tokenizer.digest[:12]}), but the corpus was made with another (digest '
                     f'{digest[:12]}): prepare it again with that tokenizer')
  return source


def exporter(config, workdir, tokenizer):
  """What writes WORKDIR/export, given the folder of a good checkpoint; None without checkpoint.export.

  Args:
    tokenizer: folder of the corpus's tokenizer.
  """
  if not config.checkpoint.export or jax.process_index() > 0:
    return None
  model = nnx.merge(graph(config), layout.weight_shapes(config))
  return checkpoint_exporter(model, tokenizers.load(str(tokenizer)), Path(workdir) / 'export')


def keep_tokenizer(tokenizer, workdir):
  """Copies the folder of the corpus's tokenizer into the workdir, which then loads without the corpus."""
  kept = Path(workdir) / 'tokenizer'
  if not kept.exists():
    fresh = kept.with_name('tokenizer.new')
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(tokenizer, fresh)
    atomic.sync_tree(fresh)
    atomic.rename(fresh, kept)
