"""Documents from TensorFlow Datasets, which it can also prepare."""

import re
import sys

from gptjax.data.corpus import pipeline
from gptjax.data.sources import fields, files, tfds_folder
from gptjax.data.sources.unit import DEFAULT_FIELD, DEFAULT_SPLIT, Unit
from gptjax.errors import InputError
from gptjax.storage.files import paths

BATCH = 64  # examples read at a time
LONG, LONG_MARK = 1 << 20, ' long'  # bytes above which a text is read alone, and the field that marks it
MAX_ORIGIN = 1 << 16  # bytes of a url, domain or title
VERSION = re.compile(r'\d+\.\d+\.\d+')


def _library():
  """Import tensorflow_datasets lazily, with little logging by TensorFlow."""
  pipeline.import_tensorflow()
  import tensorflow_datasets as tfds
  return tfds


def units(where, tfds_dir, download=False):
  """Return one unit per shard of the split `NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]`."""
  name, *rest = re.split(r':(?![^\[]*\])', where)  # a colon in train[:10%] is not a separator
  if rest and VERSION.fullmatch(rest[0]):
    name = f'{name}:{rest.pop(0)}'
  if len(rest) > 2:
    raise InputError(f'source tfds:{where} has more than NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]')
  split, field = [*rest, *[DEFAULT_SPLIT, ''][len(rest):]]
  builder = open_dataset(name, tfds_dir, download)
  field = field or _text_field(builder)
  if field not in _text_fields(builder):
    raise InputError(f'data set {name} has no text field {field!r}, it has {_text_fields(builder)}')
  try:
    info = builder.info.splits[split]
    n_shards = max(1, len(info.file_instructions))
  except (KeyError, ValueError) as error:
    raise InputError(f'data set {name} has no split {split!r}, it has '
                     f'{sorted(builder.info.splits)} ({type(error).__name__})') from None
  sizes = [builder.info.splits[part].num_examples for part in _library().even_splits(split, n_shards)]
  # Some shards may be empty, for example of the split `all` or of very small data sets.
  return [Unit('tfds', name, info.num_examples, field, split, shard, n_shards)
          for shard in range(n_shards) if sizes[shard]]


def open_dataset(name, tfds_dir, download=False):
  """Return the builder of a data set on disk; it only runs code of TFDS.

  Args:
    name: NAME[/CONFIG][:VERSION]; by default the newest version on disk.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    download: whether to prepare a missing data set there, which may download any amount of data.

  Raises:
    InputError: the data set is missing and not prepared, or it is not safe to read.
  """
  where = tfds_dir or 'the default tfds_dir'
  folder = tfds_folder.find_folder(name, tfds_dir)
  if folder is None and download and paths.URL.match(where):
    raise InputError(f'data set {name} is not in {where}: prepare it in a folder of this machine (tfds build '
                     f'{name}), and copy that to {where}')
  if folder is None and download:
    _prepare(name, tfds_dir, where)
    folder = tfds_folder.find_folder(name, tfds_dir)
  if folder is None:
    raise InputError(f'data set {name} is not in {where}: set tfds_dir to its folder, or download and '
                     f'prepare it there: tfds build {name}, or --tfds_download of '
                     'gptjax prepare, or --config.data.tfds_download=True')
  tfds_folder.require_safe(folder)
  try:
    # Not `tfds.builder`, which requests the description of a missing data set from a server.
    return _library().builder_from_directory(folder)
  except Exception as error:  # of any class: the folder can be invalid in many ways
    raise InputError(f'{folder} cannot be read as a data set of TFDS: {_reason(error)}') from error


def _prepare(name, tfds_dir, where):
  """Let TFDS download and prepare one of its own data sets with its own code, never with code in a folder."""
  name, _, version = name.partition(':')
  name, _, config = name.partition('/')
  try:
    library = _library()
    library.display_progress_bar(sys.stderr.isatty())  # its own bars would fill a log file
    builder = library.builder_cls(name)(
      data_dir=tfds_dir or None, config=config or None, version=version or None)
    builder.download_and_prepare()
  except Exception as error:  # each data set has its own code, packages and servers
    raise InputError(f'data set {name} is not in {where} and cannot be prepared: {_reason(error)}') from error


def _reason(error):
  return f'{type(error).__name__} {(str(error).strip().splitlines() or [""])[0]}'


def _text_fields(builder):
  """Return the sorted names of the fields that hold one string."""
  string, tensor = pipeline.import_tensorflow().string, _library().features.Tensor
  return sorted(name for name, kind in builder.info.features.items()
                if isinstance(kind, tensor) and (kind.shape, kind.tf_dtype) == ((), string))


def _text_field(builder):
  """Return `text`, the only field declared as text, or the only field that holds a string."""
  names = _text_fields(builder)
  if DEFAULT_FIELD in names:
    return DEFAULT_FIELD
  features = builder.info.features
  names = [name for name in names if isinstance(features[name], _library().features.Text)] or names
  if len(names) != 1:
    raise InputError(f'data set {builder.info.full_name} has the text fields {names}: choose one, '
                     f'tfds:{builder.info.full_name}:SPLIT:FIELD')
  return names[0]


def pieces(unit, tfds_dir):
  """Yield the pieces of the documents of a unit, in stored order."""
  tf, tfds, builder = pipeline.import_tensorflow(), _library(), open_dataset(unit.path, tfds_dir)
  names = {unit.field, *fields.ORIGIN_FIELDS} & set(_text_fields(builder))
  data = _dataset(builder, tfds.even_splits(unit.split, unit.n_shards)[unit.shard])
  data = data.map(lambda record: {name: record[name] for name in names})
  is_long = lambda record: tf.strings.length(record[unit.field]) > LONG

  def shortened(record):
    """Return a record without long fields, with a mark if its text is long."""
    limits = dict.fromkeys(names, MAX_ORIGIN) | {unit.field: LONG}
    short = {name: tf.where(tf.strings.length(value) > limits[name], '', value)
             for name, value in record.items()}
    return short | {LONG_MARK: is_long(record)}

  def long_texts():
    yield from data.filter(is_long).map(lambda record: record[unit.field]).as_numpy_iterator()

  location = lambda number: f'tfds:{unit.path}:{unit.split}:{unit.shard}:{number}'
  number, texts = 0, long_texts()
  try:
    # Read batches: a single record costs 0.2 ms. Long texts are read one at a time, in a second pass.
    for batch in data.map(shortened).batch(BATCH).prefetch(1).as_numpy_iterator():
      marks = batch.pop(LONG_MARK)
      for i, long in enumerate(marks):
        number += 1
        record = {name: values[i].decode(errors='replace') for name, values in batch.items()
                  if name != unit.field}
        record[unit.field] = next(texts) if long else batch[unit.field][i]
        yield from fields.record_pieces(record, location(number), unit.field)
  except tf.errors.OpError as error:
    yield files.Piece('', location(number + 1), problem=f'damaged or cut short: {_reason(error)}')


def read_records(builder, split):
  """Yield the records of a split in stored order, as dicts of NumPy values."""
  data = _dataset(builder, split)
  if any(kind.shape != () for kind in builder.info.features.values()):  # lists of any length
    yield from _library().as_numpy(data)
    return
  for batch in data.batch(BATCH).as_numpy_iterator():
    yield from (dict(zip(batch, row)) for row in zip(*batch.values(), strict=True))


def _dataset(builder, split):
  """Return a tf.data.Dataset of the records of a split, in stored order."""
  # The memory use must not depend on sizes in the folder, which are untrusted.
  config = _library().ReadConfig(interleave_cycle_length=1, skip_prefetch=True, try_autocache=False)
  return builder.as_dataset(split=split, shuffle_files=False, read_config=config)
