"""What all tasks of a corpus need to know."""

from typing import NamedTuple

from gptjax.data.stages import join, parts, run, segment_keys, work


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

  def __reduce__(self):  # other processes read themselves what they need
    return Job, tuple(self._replace(known={}, progress=False))

  @property
  def n_parts(self):
    return len(self.borders) - 1

  @property
  def work(self):
    """The folder of the results."""
    return work.folder_of(self)

  @property
  def stages(self):
    """The stages that this corpus needs, {name: run.Stage} in their order."""
    recipe, unused = self.reading.recipe, set()
    if not recipe.filters and not self.excluded:
      unused.add('judge')
    if not segment_keys.kinds(recipe):
      unused.add('mark')
    return {name: stage for name, stage in run.STAGES.items() if name not in unused}

  def finish(self):
    """Write the manifest and return it; None if a file of the corpus is missing."""
    return join.write_manifest(self)
