"""A part of a source that one worker reads."""

from typing import NamedTuple

DEFAULT_FIELD, DEFAULT_SPLIT = 'text', 'train'


class Unit(NamedTuple):
  """What is read from its beginning: a file, a shard of a TFDS split, a corpus, Python's documentation."""
  kind: str
  path: str            # file, NAME[/CONFIG][:VERSION] of a data set, folder of a corpus, or version of Python
  size: int            # bytes on disk, examples of a data set or tokens of a corpus; shows that it changed
  field: str = ''      # where a record holds its text; of a corpus, its content digest
  split: str = ''      # of a data set or corpus
  shard: int = 0       # this shard of
  n_shards: int = 1    # so many
