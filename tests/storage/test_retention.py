"""Which checkpoints are kept: the newest, the best and the multiples of a period, each rule by itself."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.storage import manifest, step_folders
from gptjax.storage.retention import Rules, kept_steps, prune

METRICS = st.dictionaries(st.integers(1, 60), st.none() | st.sampled_from([1.0, 2.0, 2.5, float('inf')]) |
                          st.floats(-5, 5), max_size=12)
RULES = st.builds(Rules, st.integers(1, 4), st.integers(0, 3), st.integers(0, 12))


@settings(max_examples=300, deadline=None)
@given(METRICS, RULES)
def test_a_step_is_kept_if_and_only_if_one_of_the_rules_keeps_it(metrics, rules):
  kept = kept_steps(metrics, rules)
  for step, metric in metrics.items():
    newer = sum(other > step for other in metrics)
    better = sum(value is not None and (value, other) < (metric, step) for other, value in metrics.items()
                 if metric is not None)
    assert (step in kept) == (newer < rules.keep or (metric is not None and better < rules.keep_best)
                              or (rules.keep_period > 0 and step % rules.keep_period == 0))
  assert kept <= metrics.keys()


def make_checkpoint(folder, step, metric=None, **changes):
  (folder / str(step)).mkdir(parents=True)
  manifest.write_manifest(folder / str(step), {'step': step, 'metric': metric, 'arrays': {}, 'files': {},
                                               'facts': {}, **changes})


@settings(max_examples=40, deadline=None)
@given(METRICS, RULES)
def test_pruned_after_each_save_or_once_the_rules_hold(metrics, rules):
  """After each save the multiples, the newest and the best so far remain; to prune again changes nothing."""
  with tempfile.TemporaryDirectory() as name:
    folder, present = Path(name), {}
    for step in sorted(metrics):
      make_checkpoint(folder, step, metrics[step])
      present[step] = metrics[step]
      present = {step: present[step] for step in kept_steps(present, rules)}
      for _ in range(2):
        prune(folder, rules)
        assert step_folders.steps(folder) == sorted(present)
    # No rule depends on what was deleted before: the same remains if all are pruned at once.
    assert set(present) == kept_steps(metrics, rules)


def test_what_is_no_valid_checkpoint_is_neither_counted_nor_deleted(tmp_path):
  for step in (1, 2, 3):
    make_checkpoint(tmp_path, step)
  (tmp_path / '4').mkdir()
  (tmp_path / '4' / 'saving').touch()
  (tmp_path / '5').mkdir()
  (tmp_path / '5' / 'manifest.json').write_text('{')
  (tmp_path / '3.damaged').mkdir()
  (tmp_path / '0.deleting').mkdir()
  prune(tmp_path, Rules(1, 1))
  assert sorted(path.name for path in tmp_path.iterdir()) == ['3', '3.damaged', '4', '5']
