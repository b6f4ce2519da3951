"""Documents from TensorFlow Datasets, prepared or not yet."""

import re

from gptjax.data.corpus import pipeline
from gptjax.data.sources import fields, files, tfds_folder
from gptjax.data.sources.unit import DEFAULT_FIELD, DEFAULT_SPLIT, Unit
from gptjax.errors import InputError

BATCH = 64  # examples read at a time
LONG, LONG_MARK = 1 << 20, ' long'  # bytes of a text that is read alone, and the field that says so
MAX_ORIGIN = 1 << 16  # bytes of a url, domain or title
VERSION = re.compile(r'\d+\.\d+\.\d+')


def _library():
  """tensorflow_datasets, loaded late, with a TensorFlow that is quiet."""
  pipeline.import_tensorflow()
  import tensorflow_datasets as tfds
  return tfds


def units(where, tfds_dir, download=False):
  """A unit for each shard of the split that `NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]` names."""
  name, *rest = re.split(r':(?![^\[]*\])', where)  # a colon in train[:10%] does not separate
  if rest and VERSION.fullmatch(rest[0]):
    name = f'{name}:{rest.pop(0)}'
  if len(rest) > 2:
    raise InputError(f'source tfds:{where} has more than NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]')
  split, field = [*rest, *[DEFAULT_SPLIT, ''][len(rest):]]
  builder = open_dataset(name, tfds_dir, download)
  field = field or _text_field(builder)
  if field not in _texts(builder):
    raise InputError(f'data set {name} has no field {field!r} of text, it has {_texts(builder)}')
  try:
    info = builder.info.splits[split]
    parts = max(1, len(info.file_instructions))
  except (KeyError, ValueError) as error:
    raise InputError(f'data set {name} has no split {split!r}, it has '
                     f'{sorted(builder.info.splits)} ({type(error).__name__})') from None
  even = [builder.info.splits[part].num_examples for part in _library().even_splits(split, parts)]
  # Of `all`, say, or of sets with hardly an example, some parts are empty.
  return [Unit('tfds', name, info.num_examples, field, split, part, parts)
          for part in range(parts) if even[part]]


def open_dataset(name, tfds_dir, download=False):
  """The builder of a data set that is on disk, which runs no code but that of TFDS.

  Args:
    name: NAME[/CONFIG][:VERSION]; without a version the newest that is there.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    download: whether to prepare the set there if it is not, which may take anything from the network.

  Raises:
    InputError: it is not there, and is not to be prepared or cannot be; it is not safe to read.
  """
  where = tfds_dir or 'the default tfds_dir'
  folder = tfds_folder.find_folder(name, tfds_dir)
  if folder is None and download:
    _prepare(name, tfds_dir, where)
    folder = tfds_folder.find_folder(name, tfds_dir)
  if folder is None:
    raise InputError(f'data set {name} is not in {where}: name the folder that has it (tfds_dir), or have it '
                     f'downloaded and prepared there: tfds build {name}, or --tfds_download of '
                     'gptjax.data.prepare, or --config.data.tfds_download=True')
  tfds_folder.require_safe(folder)
  try:
    # Not `tfds.builder`, which asks a server for the description of a set that is not there.
    return _library().builder_from_directory(folder)
  except Exception as error:  # of any class: what is in the folder can be wrong in many ways
    raise InputError(f'{folder} cannot be read as a data set of TFDS: {_reason(error)}') from error


def _prepare(name, tfds_dir, where):
  """Has TFDS download and prepare a set of its own with its own code, never by what lies in a folder."""
  name, _, version = name.partition(':')
  name, _, config = name.partition('/')
  try:
    builder = _library().builder_cls(name)(
      data_dir=tfds_dir or None, config=config or None, version=version or None)
    builder.download_and_prepare()
  except Exception as error:  # Each data set is code of its own, with its own packages and servers.
    raise InputError(f'data set {name} is not in {where} and cannot be prepared: {_reason(error)}') from error


def _reason(error):
  return f'{type(error).__name__} {(str(error).strip().splitlines() or [""])[0]}'


def _texts(builder):
  """The names of the fields that hold one string, sorted."""
  string, tensor = pipeline.import_tensorflow().string, _library().features.Tensor
  return sorted(name for name, kind in builder.info.features.items()
                if isinstance(kind, tensor) and (kind.shape, kind.tf_dtype) == ((), string))


def _text_field(builder):
  """`text`, or the only field declared as text; where none is, the only one that holds a string."""
  found = _texts(builder)
  if DEFAULT_FIELD in found:
    return DEFAULT_FIELD
  features = builder.info.features
  found = [name for name in found if isinstance(features[name], _library().features.Text)] or found
  if len(found) != 1:
    raise InputError(f'data set {builder.info.full_name} has {found} as text: say which, '
                     f'tfds:{builder.info.full_name}:SPLIT:FIELD')
  return found[0]


def pieces(unit, tfds_dir):
  """The pieces of the documents of a unit, in the order in which they are stored."""
  tf, tfds, builder = pipeline.import_tensorflow(), _library(), open_dataset(unit.path, tfds_dir)
  names = {unit.field, *fields.ORIGIN_FIELDS} & set(_texts(builder))
  data = _stored(builder, tfds.even_splits(unit.split, unit.n_shards)[unit.shard])
  data = data.map(lambda record: {name: record[name] for name in names})
  is_long = lambda record: tf.strings.length(record[unit.field]) > LONG

  def shortened(record):
    """A record without its text if that is long, and without other fields that are."""
    limits = dict.fromkeys(names, MAX_ORIGIN) | {unit.field: LONG}
    short = {name: tf.where(tf.strings.length(value) > limits[name], '', value)
             for name, value in record.items()}
    return short | {LONG_MARK: is_long(record)}

  def long_texts():
    yield from data.filter(is_long).map(lambda record: record[unit.field]).as_numpy_iterator()

  place = lambda number: f'tfds:{unit.path}:{unit.split}:{unit.shard}:{number}'
  number, alone = 0, long_texts()
  try:
    # Some at a time: one alone costs a fifth of a millisecond. Long ones come singly, from a second reading.
    for batch in data.map(shortened).batch(BATCH).prefetch(1).as_numpy_iterator():
      marks = batch.pop(LONG_MARK)
      for i, long in enumerate(marks):
        number += 1
        record = {name: values[i].decode(errors='replace') for name, values in batch.items()
                  if name != unit.field}
        record[unit.field] = next(alone) if long else batch[unit.field][i]
        yield from fields.record_pieces(record, place(number), unit.field)
  except tf.errors.OpError as error:
    yield files.Piece('', place(number + 1), problem=f'damaged or cut short: {_reason(error)}')


def read_records(builder, split):
  """The records of a split in the order in which they are stored: dicts of what `as_numpy` gives."""
  data = _stored(builder, split)
  if any(kind.shape != () for kind in builder.info.features.values()):  # lists of any lengths
    yield from _library().as_numpy(data)
    return
  for batch in data.batch(BATCH).as_numpy_iterator():
    yield from (dict(zip(batch, row)) for row in zip(*batch.values(), strict=True))


def _stored(builder, split):
  """A tf.data.Dataset of the records of a split, in the order in which they are stored."""
  # What is kept in memory must not depend on sizes that the folder states.
  config = _library().ReadConfig(interleave_cycle_length=1, skip_prefetch=True, try_autocache=False)
  return builder.as_dataset(split=split, shuffle_files=False, read_config=config)
