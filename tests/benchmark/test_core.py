"""The benchmark of CORE: both contenders give the same answers, and gates agree with the measurements."""

import core_bundle
import pytest
from conftest import mesh_of

from gptjax.benchmark.results import OURS
from gptjax.benchmark.subjects import core
from gptjax.data.tokenizers import byte_bpe

pytest.importorskip('transformers')


@pytest.mark.ci
def test_both_contenders_give_the_same_answers(tmp_path, monkeypatch):
  from gptjax.data.tokenizers import loading
  monkeypatch.setattr(loading, 'load', lambda name: byte_bpe.train_bpe([core_bundle.text()], 300))
  tasks = core.load_tasks(str(core_bundle.write(tmp_path / 'data')), 3)
  assert len(tasks) == 22
  tasks = {label: tasks[label] for label in ('arc_easy', 'winograd', 'squad')}
  with mesh_of():
    core.save_model(tmp_path / 'weights', core.TINY, 'own')
    monkeypatch.undo()
    ours = core.gptjax_answers(tmp_path / 'weights', tasks)
    theirs = core.transformers_answers(tmp_path / 'weights', tasks)
    for label in tasks:
      assert ours[label]() == theirs[label]() and len(ours[label]()) == 3


@pytest.mark.parametrize('choice, rest, holds', [
  (3.1, 1.4, [True, True]), (2.9, 1.4, [False, True]), (3.1, 1.2, [True, False])])
def test_gates_and_different_answers(tmp_path, choice, rest, holds):
  tasks = core.load_tasks(str(core_bundle.write(tmp_path / 'data')), 2)
  tasks = {label: tasks[label] for label in ('arc_easy', 'piqa', 'winograd', 'squad')}
  turn = lambda a, b, answers: {'arc_easy': (a, [0, 1]), 'piqa': (a, [1, 1]), 'winograd': (b, answers),
                                'squad': (b, [True, False])}
  turns = {OURS: [turn(1, 1, [0, 1])] * 3, core.TRANSFORMERS: [turn(choice, rest, [0, 0])] * 3}
  rows, gates, different = core.compare(turns, tasks)
  assert [gate['holds'] for gate in gates] == holds
  assert [gate['found'] for gate in gates] == pytest.approx([choice, rest])
  assert different == [('winograd', 1)]
  assert {row['what']: row['median'] for row in rows if row['who'] == OURS}['CORE, multiple choice'] == 2
