"""Documents from TensorFlow Datasets, prepared or not yet."""

import itertools
import re

from gptjax.data import fields, pipeline
from gptjax.data.sources import DEFAULT_FIELD, DEFAULT_SPLIT, Unit
from gptjax.errors import InputError

BATCH = 64  # examples read at a time
VERSION = re.compile(r'\d+\.\d+\.\d+')


def _library():
  """tensorflow_datasets, loaded late, with a TensorFlow that is quiet."""
  pipeline.tensorflow()
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
  builder = open_set(name, tfds_dir, download)
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


def open_set(name, tfds_dir, download=False):
  """The builder of a data set that is on disk.

  Args:
    name: NAME[/CONFIG][:VERSION].
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    download: whether to prepare the set there if it is not, which may take anything from the network.

  Raises:
    InputError: it is not there, and is not to be prepared or cannot be.
  """
  where = tfds_dir or 'the default tfds_dir'
  try:
    builder = _library().builder(name, data_dir=tfds_dir or None)
    if download and not builder.info.splits:
      builder.download_and_prepare()
  except Exception as error:  # Each data set is code of its own, with its own packages and servers.
    why = (str(error).strip().splitlines() or [''])[0]
    raise InputError(f'data set {name} is not in {where} and cannot be prepared: '
                     f'{type(error).__name__} {why}') from error
  if not builder.info.splits:
    raise InputError(f'data set {name} is not in {where}: name the folder that has it (tfds_dir), or have it '
                     f'downloaded and prepared there: tfds build {name}, or --tfds_download of '
                     'gptjax.data.prepare, or --config.data.tfds_download=True')
  return builder


def _texts(builder):
  """The names of the fields that hold one string, sorted."""
  string, tensor = pipeline.tensorflow().string, _library().features.Tensor
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
  tfds, builder = _library(), open_set(unit.path, tfds_dir)
  wanted = {unit.field, *fields.FIELDS} & set(_texts(builder))
  split = tfds.even_splits(unit.split, unit.parts)[unit.part]
  data = builder.as_dataset(split=split, shuffle_files=False,
                            read_config=tfds.ReadConfig(interleave_cycle_length=1))
  # Some at a time: one alone costs a fifth of a millisecond.
  data = data.map(lambda record: {name: record[name] for name in wanted}).batch(BATCH)
  for first, batch in zip(itertools.count(1, BATCH), data.as_numpy_iterator(), strict=False):
    for i in range(len(batch[unit.field])):
      record = {name: values[i].decode(errors='replace') if name != unit.field else values[i]
                for name, values in batch.items()}
      place = f'tfds:{unit.path}:{unit.split}:{unit.part}:{first + i}'
      yield from fields.pieces(record, place, unit.field)


def records(builder, split):
  """The records of a split in the order in which they are stored: dicts of what `as_numpy` gives."""
  tfds = _library()
  data = builder.as_dataset(split=split, shuffle_files=False,
                            read_config=tfds.ReadConfig(interleave_cycle_length=1))
  if any(kind.shape != () for kind in builder.info.features.values()):  # lists of any lengths
    yield from tfds.as_numpy(data)
    return
  for batch in data.batch(BATCH).as_numpy_iterator():
    yield from (dict(zip(batch, row)) for row in zip(*batch.values(), strict=True))
