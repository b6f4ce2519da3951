"""What all tasks of a corpus need to know."""

import hashlib
import json
from typing import NamedTuple

from gptjax.data.stages import parts, work

FOLDER = 'folder'  # in `known`
LAYOUT = 2         # of the results: those of another version are not read


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
    """The folder of the results. Tasks of other settings, which may still run, have another one."""
    if FOLDER not in self.known:
      state = json.dumps([LAYOUT, self.settings, self.borders], sort_keys=True)
      self.known[FOLDER] = self.out / work.FOLDER / hashlib.sha256(state.encode()).hexdigest()[:16]
    return self.known[FOLDER]
