"""What a run has to do with weights of others: it may start from some, and give its own away."""

import sys
from pathlib import Path

import jax
from flax import nnx

from gptjax.config import resume
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.files import atomic
from gptjax.pretrained import layout, open_source
from gptjax.pretrained.export import checkpoint_exporter
from gptjax.storage.checkpoint import any_completed
from gptjax.train.step import graph


def open_initial_weights(config, workdir, overrides=()):
  """The layout.Source that `config.init_from` names, whose model and tokenizer become the config's.

  Args:
    config: as written; what the weights were made for is set in place.
    workdir: of the run; one of its own checkpoints goes first.
    overrides: names of the fields that the command line sets: those must fit.

  Returns:
    The Source; None if the run does not start there.

  Raises:
    InputError: the weights cannot be read, or do not fit fields that are given: names them all.
  """
  if not config.init_from or any_completed(Path(workdir) / 'checkpoints'):
    return None
  # Where no tokenizer lies with the weights, the number of its entries can be given; other rows are padding.
  source = open_source(config.init_from, config.model.n_vocab if 'model.n_vocab' in overrides else None)
  wrong, other = [], []
  for name, value in layout.config_from_fields(source.fields).model.to_dict().items():
    mine = config.model[name]
    padding = name == 'pad_vocab_to' and name not in source.fields  # files hold no padded rows
    derived = name == 'n_inner' and not mine
    if mine == value or padding or not resume.is_weights_field(f'model.{name}'):
      continue
    if f'model.{name}' in overrides and not derived:
      wrong.append(f'config.model.{name} = {mine!r} (the weights: {value!r})')
    elif not derived:
      other.append(f'config.model.{name} = {value!r} (not {mine!r})')
    config.model[name] = value
  tokenizer = config.data.tokenizer
  if source.tokenizer and tokenizer:
    if 'data.tokenizer' in overrides and not _same_tokenizer(tokenizer, source.tokenizer):
      wrong.append(f'config.data.tokenizer = {tokenizer!r} (the weights: {source.tokenizer.name}, digest '
                   f'{source.tokenizer.digest[:12]})')
    config.data.tokenizer = ''  # the corpus is compared with that of the weights
  if wrong:
    raise InputError(f'the weights of config.init_from = {config.init_from!r} do not fit '
                     f'{", ".join(wrong)}: leave out what they bring themselves')
  if other and jax.process_index() == 0:
    print(f'from the weights of {source.folder}: {", ".join(other)}', file=sys.stderr)
  return source


def _same_tokenizer(spec, tokenizer):
  return not spec.startswith('train-bpe') and loading.load(spec).digest == tokenizer.digest


def check_tokenizer(config, source, made):
  """Refuses a corpus made with another tokenizer than that of the first weights (ValueError).

  Where no tokenizer lies with the weights this cannot be checked, and a line on stderr says so.

  Args:
    config: of the run.
    source: layout.Source of the first weights, or None.
    made: what the corpus says of its tokenizer, `corpus.Corpus.tokenizer`.
  """
  if not source:
    return
  theirs, where = source.tokenizer, f'config.init_from = {config.init_from!r}'
  if theirs is None:
    if jax.process_index() == 0:
      print(f'{where} has no tokenizer: nothing shows that the corpus, made with {made["name"]} '
            f'(digest {made["digest"][:12]}), has the ids that the weights were trained on', file=sys.stderr)
  elif theirs.digest != made['digest']:
    raise InputError(f'{where} has the tokenizer {theirs.name} (digest {theirs.digest[:12]}), but the corpus '
                     f'was made with another (digest {made["digest"][:12]}): prepare it again with that '
                     'tokenizer')
  elif theirs.end_of_text != made['end_of_text']:
    raise InputError(f'{where} has the end-of-text token {theirs.end_of_text}, but the documents of the '
                     f'corpus end with {made["end_of_text"]}: prepare it again with that tokenizer')


def make_exporter(config, workdir, source, tokenizer):
  """What writes WORKDIR/export, given the folder of a good checkpoint; None without checkpoint.export.

  Args:
    config: of the run.
    workdir: of the run.
    source: layout.Source of the first weights, or None.
    tokenizer: folder of the corpus's tokenizer.
  """
  if not config.checkpoint.export or jax.process_index() > 0:
    return None
  model = nnx.merge(graph(config), layout.weight_shapes(config))
  made = source.tokenizer if source else None
  return checkpoint_exporter(model, made or _kept(workdir, loading.load(str(tokenizer))),
                             Path(workdir) / 'export')


def _kept(workdir, made):
  """The tokenizer that the workdir keeps, which has its own `eos_ids`, if it is this one."""
  folder = Path(workdir) / 'tokenizer'
  kept = loading.load(str(folder)) if folder.is_dir() else made
  return kept if kept.digest == made.digest else made


def save_run_tokenizer(source, tokenizer, workdir):
  """Puts the tokenizer into the workdir, if it is not there yet.

  That of the first weights goes first: a corpus does not say at which ids their texts end.

  Args:
    source: layout.Source of the first weights, or None.
    tokenizer: folder of the corpus's tokenizer.
    workdir: of the run.
  """
  if source and source.tokenizer:
    save_tokenizer(source.tokenizer, workdir)
  else:
    save_corpus_tokenizer(tokenizer, workdir)


def save_tokenizer(tokenizer, workdir):
  """Writes WORKDIR/tokenizer, if it is not there yet."""
  kept = Path(workdir) / 'tokenizer'
  if not kept.exists():
    fresh = atomic.new_name(kept)
    tokenizer.save(fresh)
    atomic.sync_tree(fresh)
    atomic.rename(fresh, kept)


def save_corpus_tokenizer(tokenizer, workdir):
  """Writes the corpus's tokenizer into the workdir, which then loads without the corpus.

  Only the files of a tokenizer are written, with what was read of them: a folder may hold anything else, and
  links to anywhere.

  Args:
    tokenizer: its folder.
    workdir: of the run.
  """
  if not (Path(workdir) / 'tokenizer').exists():
    save_tokenizer(loading.load(str(tokenizer)), workdir)
