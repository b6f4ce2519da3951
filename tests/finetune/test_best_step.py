"""The best step of a fine-tuned run is one whose checkpoint was saved."""

from types import SimpleNamespace

import pytest

from gptjax.errors import InputError
from gptjax.finetune import run as finetune_run

HISTORY = [[0.5, 10], [0.9, 20], [0.8, 30], [0.8, 40]]


@pytest.mark.parametrize('saved, expected, n_lines', [
  ([10, 20, 30, 40], 20, 0), ([10, 30, 40], 30, 1), ([40], 40, 1), ([20, 40], 20, 0)])
def test_a_step_that_was_not_saved_is_not_the_best(monkeypatch, tmp_path, saved, expected, n_lines):
  monkeypatch.setattr(finetune_run, 'score_history', lambda run, telemetry: HISTORY)
  monkeypatch.setattr(finetune_run.checkpoints, 'steps', lambda folder: [10, 20, 30, 40])
  monkeypatch.setattr(finetune_run.checkpoints, 'read_manifest',
                      lambda folder: {'step': int(folder.name)} if int(folder.name) in saved else None)
  said = []
  run, telemetry = SimpleNamespace(folder=tmp_path), SimpleNamespace(log=said.append)
  assert finetune_run.best_saved_step(run, telemetry) == expected
  assert len(said) == n_lines
  assert all(f'step, 20, was not saved or is gone: step {expected}' in line for line in said)


def test_without_any_a_line_says_so(monkeypatch, tmp_path):
  monkeypatch.setattr(finetune_run, 'score_history', lambda run, telemetry: HISTORY)
  with pytest.raises(InputError, match='has no checkpoint of a step that was evaluated'):
    finetune_run.best_saved_step(SimpleNamespace(folder=tmp_path), SimpleNamespace(log=print))
