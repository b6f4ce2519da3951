"""A unit: a part of a source that is read from its beginning."""

from typing import NamedTuple

DEFAULT_FIELD, DEFAULT_SPLIT = 'text', 'train'


class Unit(NamedTuple):
  """A file, a shard of a TFDS split, a corpus, or Python's documentation."""
  kind: str
  path: str            # file, NAME[/CONFIG][:VERSION] of a data set, folder of a corpus, or version of Python
  size: int            # bytes on disk, examples of a data set or tokens of a corpus; detects changes
  field: str = ''      # the field of a record with its text; the content digest of a corpus
  split: str = ''      # of a data set or corpus
  shard: int = 0       # index of the shard
  n_shards: int = 1
