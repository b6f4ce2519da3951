"""Documents from TensorFlow Datasets, prepared or not yet."""

import re

from gptjax.data import files
from gptjax.data.sources import DEFAULT_FIELD, DEFAULT_SPLIT, Unit

VERSION = re.compile(r'\d+\.\d+\.\d+')


def units(where, tfds_dir):
  """A unit for each shard of the split that `NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]` names."""
  name, *rest = re.split(r':(?![^\[]*\])', where)  # a colon in train[:10%] does not separate
  if rest and VERSION.fullmatch(rest[0]):
    name = f'{name}:{rest.pop(0)}'
  if len(rest) > 2:
    raise ValueError(f'source tfds:{where} has more than NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]')
  split, field = [*rest, *[DEFAULT_SPLIT, ''][len(rest):]]
  builder = _builder(name, tfds_dir)
  field = field or _text_field(builder)
  if field not in builder.info.features:
    raise ValueError(f'data set {name} has no field {field!r}, it has '
                     f'{sorted(builder.info.features)}')
  try:
    info = builder.info.splits[split]
    parts = max(1, len(info.file_instructions))
  except (KeyError, ValueError) as error:
    raise ValueError(f'data set {name} has no split {split!r}, it has '
                     f'{sorted(builder.info.splits)} ({type(error).__name__})') from None
  return [Unit('tfds', name, info.num_examples, field, split, part, parts) for part in range(parts)]


def _builder(name, tfds_dir):
  """The builder of a data set that is on disk, or that could be prepared now."""
  import tensorflow_datasets as tfds
  try:
    builder = tfds.builder(name, data_dir=tfds_dir or None)
    if not builder.info.splits:
      builder.download_and_prepare()
  except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, OSError) as error:
    why = (str(error).strip().splitlines() or [''])[0]
    raise ValueError(f'data set {name} is not in {tfds_dir or "the default tfds_dir"} and cannot '
                     f'be prepared: {type(error).__name__} {why}') from None
  return builder


def _text_field(builder):
  """`text`, or the only field that holds text."""
  import tensorflow_datasets as tfds
  found = [name for name, kind in builder.info.features.items()
           if isinstance(kind, tfds.features.Text)]
  if DEFAULT_FIELD in found:
    return DEFAULT_FIELD
  if len(found) != 1:
    raise ValueError(f'data set {builder.info.full_name} has {sorted(found)} as text: say which, '
                     f'tfds:{builder.info.full_name}:SPLIT:FIELD')
  return found[0]


def pieces(unit, tfds_dir):
  """The pieces of the documents of a unit, in the order in which they are stored."""
  import tensorflow_datasets as tfds
  builder = _builder(unit.path, tfds_dir)
  wanted = {name: True for name in (unit.field, *files.FIELDS) if name in builder.info.features}
  split = tfds.even_splits(unit.split, unit.parts)[unit.part]
  data = builder.as_dataset(split=split, shuffle_files=False,
                            decoders=tfds.decode.PartialDecoding(wanted),
                            read_config=tfds.ReadConfig(interleave_cycle_length=1))
  for number, record in enumerate(tfds.as_numpy(data), 1):
    fields = {name: value.decode(errors='replace') if name != unit.field else value
              for name, value in record.items()}
    place = f'tfds:{unit.path}:{unit.split}:{unit.part}:{number}'
    yield from files.record_pieces(fields, place, unit.field)
