"""The initial weights and the exported weights of a run, with their tokenizers."""

import sys

import jax
from flax import nnx

from gptjax.config import resume
from gptjax.data.tokenizers import loading
from gptjax.data.tokenizers.tokenizer_files import saved_files
from gptjax.errors import InputError
from gptjax.pretrained import layout, open_source
from gptjax.pretrained.export import checkpoint_exporter
from gptjax.storage.checkpoint import any_completed
from gptjax.storage.files import access, atomic, buckets, cache, paths, records
from gptjax.storage.files.paths import Url
from gptjax.train.step import graph

DERIVED = ('n_inner', 'n_kv_head', 'head_size')  # fields of config.model that are 0 if others determine them


def open_initial_weights(config, workdir, overrides=()):
  """Return the layout.WeightSource of `config.init_from`, and set its model and tokenizer in the config.

  Args:
    config: unresolved config; the fields that the weights determine are set in place.
    workdir: workdir of the run; its own checkpoints take precedence.
    overrides: names of the fields that the command line sets; they must match the weights.

  Returns:
    The WeightSource; None if the run does not start from these weights.

  Raises:
    InputError: the weights cannot be read, or do not match the overrides; the message lists all of them.
  """
  if not config.init_from or any_completed(paths.location(workdir) / 'checkpoints'):
    return None
  # Without a tokenizer in the folder, n_vocab sets the number of its entries; other rows are padding.
  source = open_source(config.init_from, config.model.n_vocab if 'model.n_vocab' in overrides else None)
  conflicts, changes = [], []
  for name, value in layout.config_from_fields(source.fields).model.to_dict().items():
    value_in_config = config.model[name]
    padding = name == 'pad_vocab_to' and name not in source.fields  # files have no padding rows
    derived = name in DERIVED and not value_in_config
    # Without a matrix of positions, sequences may be shorter, or longer, than those that it was trained on.
    length = name == 'n_ctx' and 'model.n_ctx' in overrides and source.fields.get('positions') == 'rotary'
    if value_in_config == value or padding or length or not resume.is_weights_field(f'model.{name}'):
      continue
    if f'model.{name}' in overrides and not derived:
      conflicts.append(f'config.model.{name} = {value_in_config!r} (the weights: {value!r})')
    elif not derived:
      changes.append(f'config.model.{name} = {value!r} (not {value_in_config!r})')
    config.model[name] = value
  tokenizer = config.data.tokenizer
  if source.tokenizer and tokenizer:
    if 'data.tokenizer' in overrides and not _same_tokenizer(tokenizer, source.tokenizer):
      conflicts.append(f'config.data.tokenizer = {tokenizer!r} (the weights: {source.tokenizer.name}, digest '
                   f'{source.tokenizer.digest[:12]})')
    config.data.tokenizer = ''  # the corpus is checked against the tokenizer of the weights
  if conflicts:
    raise InputError(f'the weights of config.init_from = {config.init_from!r} do not match '
                     f'{", ".join(conflicts)}: remove these flags, the weights determine the fields')
  if changes and jax.process_index() == 0:
    print(f'from the weights of {source.folder}: {", ".join(changes)}', file=sys.stderr)
  layout.report_dropout(source, config.model.dropout)
  return source


def _same_tokenizer(spec, tokenizer):
  return not spec.startswith('train-') and loading.load(spec).digest == tokenizer.digest


def check_tokenizer(config, source, facts):
  """Raise ValueError for a corpus whose tokenizer differs from that of the initial weights.

  If the weights have no tokenizer, print a warning to stderr that this cannot be checked.

  Args:
    config: config of the run.
    source: layout.WeightSource of the initial weights, or None.
    facts: description of the tokenizer of the corpus, `reader.Corpus.tokenizer`.
  """
  if not source:
    return
  tokenizer, origin = source.tokenizer, f'config.init_from = {config.init_from!r}'
  if tokenizer is None:
    if jax.process_index() == 0:
      print(f'{origin} has no tokenizer: cannot check that the corpus, made with {facts["name"]} '
            f'(digest {facts["digest"][:12]}), has the ids that the weights were trained on', file=sys.stderr)
  elif tokenizer.digest != facts['digest']:
    raise InputError(f'{origin} has the tokenizer {tokenizer.name} (digest {tokenizer.digest[:12]}), but the '
                     f'corpus was made with another (digest {facts["digest"][:12]}): prepare it again with '
                     'that tokenizer')
  elif tokenizer.end_of_text != facts['end_of_text']:
    raise InputError(f'{origin} has the end-of-text token {tokenizer.end_of_text}, but the documents of the '
                     f'corpus end with {facts["end_of_text"]}: prepare it again with that tokenizer')


def make_exporter(config, workdir, source, tokenizer):
  """Return a function that exports a valid checkpoint to WORKDIR/export; None without checkpoint.export.

  Args:
    config: config of the run.
    workdir: workdir of the run.
    source: layout.WeightSource of the initial weights, or None.
    tokenizer: folder of the corpus's tokenizer.
  """
  if not config.checkpoint.export or jax.process_index() > 0:
    return None
  model = nnx.merge(graph(config), layout.weight_shapes(config))
  initial = source.tokenizer if source else None
  exported = initial or _workdir_tokenizer(workdir, loading.load(str(tokenizer)))
  return checkpoint_exporter(model, exported, paths.location(workdir) / 'export')


def _workdir_tokenizer(workdir, tokenizer):
  """Return the tokenizer of the workdir, which has its own `eos_ids`, if it equals `tokenizer`."""
  folder = paths.location(workdir) / 'tokenizer'
  saved = loading.load(str(cache.folder(folder))) if access.is_folder(folder) else tokenizer
  return saved if saved.digest == tokenizer.digest else tokenizer


def save_run_tokenizer(source, tokenizer, workdir, begin_of_text=None):
  """Save the tokenizer in the workdir, see `save_tokenizer`.

  The tokenizer of the initial weights takes precedence: a corpus does not have the `eos_ids` of the model.

  Args:
    source: layout.WeightSource of the initial weights, or None.
    tokenizer: folder of the corpus's tokenizer.
    workdir: workdir of the run.
    begin_of_text: id of the token by which each document of the corpus begins, or None.
  """
  if source and source.tokenizer:
    save_tokenizer(source.tokenizer, workdir)
  else:
    save_corpus_tokenizer(tokenizer, workdir, begin_of_text)


def save_tokenizer(tokenizer, workdir):
  """Write WORKDIR/tokenizer, unless the run has one.

  A workdir with a config.json has that of its run, whole: so call it before that is written. Without one,
  what is there may be of another run, which was killed early: it is replaced if it differs (on this machine
  it is renamed to `tokenizer.replaced`).
  """
  workdir = paths.location(workdir)
  folder, files = workdir / 'tokenizer', saved_files(tokenizer)
  if _is_saved(workdir):
    return
  if isinstance(workdir, Url):
    for name, content in files.items():
      access.write(folder / name, content)
    for name in buckets.find(folder).keys() - files.keys():
      access.remove(folder / name)
    return
  if access.is_folder(folder):
    if _has_files(folder, files):
      return
    records.log(f'{folder} is not the tokenizer of this run: moved to '
                f'{atomic.move_aside(folder, "replaced").name}')
  new = atomic.new_name(folder)
  tokenizer.save(new)
  atomic.sync_tree(new)
  atomic.rename(new, folder)


def _is_saved(workdir):
  """Whether the workdir has the tokenizer of its run."""
  return access.is_folder(workdir / 'tokenizer') and access.is_file(workdir / 'config.json')


def _has_files(folder, files):
  """Whether a folder of this machine has exactly these files, {name: bytes}."""
  return access.names(folder) == sorted(files) and all(
    access.is_file(folder / name) and access.read(folder / name) == content
    for name, content in files.items())


def save_corpus_tokenizer(tokenizer, workdir, begin_of_text=None):
  """Save the corpus's tokenizer in the workdir, which can then be loaded without the corpus.

  Only the files of the tokenizer are written, with the content that was read: the folder is untrusted and may
  have other files, and links to anywhere. The model that is trained learns how texts begin from the corpus,
  where that of another model, from which the tokenizer is, may never occur.

  Args:
    tokenizer: folder of the tokenizer.
    workdir: workdir of the run.
    begin_of_text: see `save_run_tokenizer`.
  """
  if not _is_saved(paths.location(workdir)):
    loaded = loading.load(str(cache.folder(paths.location(tokenizer))))
    loaded.start_of_text = loaded.end_of_text if begin_of_text is None else begin_of_text
    save_tokenizer(loaded, workdir)
