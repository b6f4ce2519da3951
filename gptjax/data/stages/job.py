"""What all tasks of a corpus need to know."""

from typing import NamedTuple

from gptjax.data.stages import parts, work


class Job(NamedTuple):
  """The checked arguments of `prepare`; can be pickled for workers."""
  reading: parts.ReadOptions
  tokenizer: str        # as for `loading.load`, or a spec of `training`
  out: object           # Path or Url of the corpus
  validation_fraction: float
  seq_len: int          # tokens of a window: the least amount that is held out
  shard_tokens: int
  settings: dict        # everything that the corpus depends on, as JSON
  progress: bool
  special_tokens: tuple
  excluded: object      # excluded.Excluded, or None
  borders: list         # of the parts, see `stages.parts`
  known: dict           # what this process has read of the work folder, see `stages.work`

  @property
  def n_parts(self):
    return len(self.borders) - 1

  @property
  def work(self):
    return self.out / work.FOLDER
