"""The studies: their runs, tables and plots; the end-to-end tests on a tiny model are slow."""

import copy
import json

import numpy as np
import pytest
import zero_shot_sets
from conftest import mesh_of, tiny_config

import gptjax
from configs import gpt1_ablations, gpt1_transfer, gpt1_zero_shot
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.tasks import gpt1
from gptjax.finetune import job, studies, zero_shot
from gptjax.finetune.tasks import published


def test_the_table_of_ablations_has_the_papers_rows_beside_ours():
  ours = {'sst2': {'accuracy': 0.8}, 'cola': {'matthews': 0.1}}
  tasks_of = {name: published.find(name) for name in ours}
  lines = studies.ablation_table({'aux LM': ours, 'LSTM': ours}, tasks_of).splitlines()
  assert lines[0] == '|  | Avg | sst2 accuracy | cola matthews |'
  assert lines[2:] == ['| aux LM, validation | 45.0 | 80.0 | 10.0 |',
                       '| aux LM, the paper (test) | 68.3 | 91.3 | 45.4 |',
                       '| LSTM, validation | 45.0 | 80.0 | 10.0 |',
                       '| LSTM, the paper (test) | 60.4 | 90.5 | 30.3 |']


def test_the_papers_means_are_those_that_it_prints():
  means = {name: np.mean(list(row.values())) for name, row in studies.TABLE_5.items()}
  printed = {'aux LM': 74.7, 'no pretraining': 59.9, 'no aux LM': 75.0, 'LSTM': 69.1}
  assert means == pytest.approx(printed, abs=0.07), 'its rounding of MNLI, the mean of two, apart'


def fake(monkeypatch):
  """Puts in the job's place what only notes its config, and writes a result."""
  seen = []
  def finetune(config, workdir, given):
    workdir.mkdir(parents=True)
    seen.append((workdir.name, config))
    run = {'metrics': {'accuracy': 0.5 + len(seen) / 100}, 'train_metrics': {'accuracy': 0.6}}
    found = {'version': 2, 'tasks': {'sst2': run['metrics']}, 'runs': {'sst2': [run]}}
    (workdir / 'results.json').write_text(json.dumps(found))
    return 0
  monkeypatch.setattr(job, 'finetune', finetune)
  return seen


def test_ablations_differ_in_one_thing_each(monkeypatch, tmp_path):
  seen = fake(monkeypatch)
  config = gpt1_ablations.get_config('sst2')
  config.finetune.lstm_from, config.init_from = 'lstm', 'transformer'
  assert studies.run_job(config, tmp_path) == 0
  assert [(name, c.finetune.pretrained, c.finetune.lm_coef, c.init_from) for name, c in seen] == [
    ('aux-LM', True, 0.5, 'transformer'), ('no-pretraining', False, 0.5, 'transformer'),
    ('no-aux-LM', True, 0.0, 'transformer'), ('LSTM', True, 0.5, 'lstm')]
  assert '| LSTM, the paper (test) | 90.5 | 90.5 |' in (tmp_path / 'results.md').read_text()


@pytest.mark.parametrize('change', [{'pretrained': False}, {'train_examples': 0}])
def test_transfer_without_what_it_measures_is_refused_at_once(tmp_path, change):
  config = gpt1_transfer.get_config('sst2')
  config.finetune.update(change)
  with pytest.raises(ValueError, match='the transfer study needs config'):
    studies.run_job(config, tmp_path)
  assert not list(tmp_path.iterdir())


def test_transfer_goes_from_no_layer_to_all(monkeypatch, tmp_path):
  seen = fake(monkeypatch)
  monkeypatch.setattr(studies.weights, 'open_pretrained', lambda config: config.model.update(dict(n_layer=2)))
  assert studies.run_job(gpt1_transfer.get_config('sst2'), tmp_path) == 0
  assert [c.finetune.transfer_layers for _, c in seen] == [0, 1, 2]
  assert all(c.finetune.train_examples == 1000 for _, c in seen)
  assert (tmp_path / 'transfer.png').stat().st_size > 5000
  assert '| 2 | 53.0 | 60.0 |' in (tmp_path / 'results.md').read_text()


def test_transfer_shows_the_metrics_of_the_figure():
  metric = lambda name: studies.figure_metric(name, published.find(name))
  assert (metric('mnli'), metric('race'), metric('sst2')) == ('accuracy/m', 'accuracy/all', 'accuracy')


def test_an_unknown_study_is_refused(tmp_path):
  config = gpt1_ablations.get_config('sst2')
  config.finetune.study = 'table6'
  with pytest.raises(ValueError, match="'table6' must be one of '', ablations, transfer, zero_shot"):
    studies.run_job(config, tmp_path)


def test_a_damaged_set_of_a_study_is_refused_and_another_one_noted(monkeypatch, capsys):
  sets = copy.deepcopy(zero_shot_sets.TFDS)
  zero_shot_sets.mock_tfds(monkeypatch, sets)
  config = gpt1_zero_shot.get_config()
  suites = zero_shot.read_suites(config)
  assert set(suites) == {'acceptability', 'sentiment', 'question answering', 'winograd'}
  assert 'question answering: note: data set race' in capsys.readouterr().err
  sets['glue/sst2']['validation'] = [{'sentence': b'fine', 'label': 7}]
  with pytest.raises(ValueError, match='data set glue/sst2, split validation, record 0: label'):
    zero_shot.read_suites(config)
  del sets['glue/sst2']
  assert 'sentiment' not in zero_shot.read_suites(config)
  assert 'sentiment is skipped' in capsys.readouterr().err


@pytest.mark.slow
def test_zero_shot_over_the_checkpoints_of_two_runs(shared_data, corpus_folder, tmp_path, capsys):
  from gptjax.pretrain.loop import pretrain
  kinds = {'transformer': {}, 'lstm': {'model.architecture': 'lstm', 'model.n_layer': 1, 'model.n_inner': 24}}
  for name, changes in kinds.items():
    config = tiny_config(**changes, **{
      'model.n_ctx': 64, 'model.n_vocab': 290, 'data.seq_len': 24, 'data.corpus': str(corpus_folder),
      'train.steps': 4, 'mesh.data': 8, 'checkpoint.keep': 1, 'checkpoint.keep_best': 0,
      'checkpoint.keep_period': 2, 'checkpoint.keep_period_weights_only': name == 'transformer',
      'log.tensorboard': False})
    assert pretrain(config, tmp_path / name) == 0
  config = studies.with_changes(gpt1_zero_shot.get_config(), {
    'init_from': str(tmp_path / 'transformer'), 'finetune.lstm_from': str(tmp_path / 'lstm'),
    'data.tfds_dir': str(shared_data / 'tfds'), 'finetune.limit': 20, 'eval.batch_size': 16})
  config.finetune.study = 'zero_shot'
  assert studies.run_job(config, tmp_path / 'study') == 0
  said = capsys.readouterr().err
  assert 'question answering is skipped: race/middle is missing' in said
  found = json.loads((tmp_path / 'study' / 'results.json').read_text())['study']
  assert {name: sorted(of) for name, of in found.items()} == {'Transformer': ['2', '4'], 'LSTM': ['2', '4']}
  assert set(found['LSTM']['4']) == {'acceptability', 'sentiment'}
  assert (tmp_path / 'study' / 'zero_shot.png').stat().st_size > 5000
  with mesh_of():
    model, tokenizer = gptjax.load(tmp_path / 'transformer')
    ids = np.arange(9, dtype=np.int32)
    logits = np.asarray(model(ids[None]))[0]
    wanted = [logits[i, ids[i + 1]] - np.log(np.exp(logits[i]).sum()) for i in range(8)]
    score, *_ = gpt1.heuristic_inputs(make_evaluated_model(model, tokenizer, 2))
    np.testing.assert_allclose(score([ids[:3], ids])[1], wanted, rtol=1e-4)
