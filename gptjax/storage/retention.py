"""Which checkpoints of a run are kept, and the deletion of the others.

After each save, and when a run resumes at a checkpoint, these are kept:
  1. the `keep` newest;
  2. the `keep_best` with the smallest metric: of equal metrics the earlier ones, and none without a metric;
  3. if `keep_period` is above 0, all whose step is a multiple of it; with `weights_only`, each of these only
     until `milestones` has a copy of its weights, which stays.
The rules do not depend on each other: a checkpoint is kept if any of them keeps it, and it counts for each.
All others are deleted. A folder without a valid manifest is neither counted nor deleted, except for what a
failed save to a bucket has left of an earlier step.
"""

import concurrent.futures
from typing import NamedTuple

from gptjax.storage import milestones, step_folders
from gptjax.storage.files import paths
from gptjax.storage.manifest import read_manifest
from gptjax.storage.step_folders import steps

READERS = 16  # threads that read manifests


class Rules(NamedTuple):
  """Which checkpoints are kept.

  keep: number of newest checkpoints, at least 1.
  keep_best: number of checkpoints with the smallest metric.
  keep_period: each checkpoint whose step is a multiple of it; 0: none.
  weights_only: of these, keep the weights alone, as milestones.
  """
  keep: int
  keep_best: int
  keep_period: int = 0
  weights_only: bool = False


def rules_of(fields):
  """Return the Rules of a section `checkpoint` of the config."""
  return Rules(fields.keep, fields.keep_best, fields.keep_period, fields.keep_period_weights_only)


def in_period(step, period):
  """Whether a step is a positive multiple of a period; of 0 none is."""
  return period > 0 and step > 0 and step % period == 0


def milestone_steps(folder, rules):
  """Return the steps in `WORKDIR/checkpoints` of which there should be milestones, ascending."""
  return [step for step in steps(folder) if rules.weights_only and in_period(step, rules.keep_period)]


def kept_steps(metrics, rules, copied=()):
  """Return the set of steps that are kept.

  Args:
    metrics: {step: metric, or None} of all checkpoints.
    rules: Rules.
    copied: steps whose weights are in milestones.
  """
  newest = sorted(metrics)[-rules.keep:]
  evaluated = [step for step, metric in metrics.items() if metric is not None]
  best = sorted(evaluated, key=lambda step: (metrics[step], step))[:rules.keep_best]
  periodic = (step for step in metrics if in_period(step, rules.keep_period) and step not in copied)
  return {*newest, *best, *periodic}


def _manifests(folder):
  """Return {step: manifest, or None if it is damaged} of all checkpoints."""
  found = steps(folder)
  with concurrent.futures.ThreadPoolExecutor(READERS) as pool:  # in a bucket, each is a request
    return dict(zip(found, pool.map(lambda step: read_manifest(folder / str(step)), found), strict=True))


def prune(folder, rules):
  """Delete the checkpoints in `WORKDIR/checkpoints` that the rules do not keep."""
  folder = paths.location(folder)
  manifests = _manifests(folder)
  metrics = {step: manifest['metric'] for step, manifest in manifests.items() if manifest}
  copied = {step for step in milestone_steps(folder, rules)
            if step in metrics and milestones.is_copied(folder / str(step), manifests[step])}
  kept = kept_steps(metrics, rules, copied)
  step_folders.make_durable([*(folder / str(step) for step in kept), folder,
                             *([folder.parent / milestones.MILESTONES] if copied else [])])
  for step in metrics.keys() - kept:
    step_folders.discard(folder / str(step))
  step_folders.discard_interrupted(folder, before=max(metrics, default=0))
  step_folders.finish_deletions(folder)
