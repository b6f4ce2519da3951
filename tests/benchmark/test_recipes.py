"""The comparison of recipes: runs that are done once, budgets, tuned rates, and what seeds allow to say."""

import json
import types

import pytest

from gptjax import defaults
from gptjax.benchmark.recipes import budgets, comparison, contenders, report, training
from gptjax.benchmark.recipes import runs as runs_module
from gptjax.benchmark.recipes.contenders import BASELINE, MODERN, SIZES, WITHOUT
from gptjax.benchmark.subjects import recipes
from gptjax.command.shutdown import STOPPED
from gptjax.config import files
from gptjax.config import resolve as configs
from gptjax.pretrain import loop
from gptjax.report import telemetry
from gptjax.storage.files.run_config import flat

TINY = contenders.Size(dict(n_layer=1, n_head=2, n_embd=16), 5120, 8, {BASELINE: 1e-2, MODERN: 1e-2})


@pytest.fixture
def trained(monkeypatch):
  """Training only returns a loss, lowest at a rate of 4e-3, and lower for Muon; the list has all configs."""
  configs_trained = []

  def train(config, workdir):
    configs_trained.append(config)
    c, muon = config.optimizer, config.optimizer.name == 'muon'
    loss = 4 + abs(c.learning_rate - 4e-3) + 1e-3 * config.train.seed - muon + 10 / config.train.steps
    return {'loss': loss}

  monkeypatch.setattr(training, 'train', train)
  monkeypatch.setattr(training, 'step_times', lambda configs, workdir: [
    [turn * (3 if config.optimizer.name == 'muon' else 2) for turn in (1.0, 1.5, 1.2)] for config in configs])
  return configs_trained


def command(folder, *flags):
  return recipes.main(['--source=text:x', f'--workdir={folder}/runs', f'--out={folder}/found.json', *flags])


@pytest.mark.slow
def test_each_run_is_done_once_and_a_comparison_continues(trained, tmp_path, monkeypatch, capsys):
  clock = types.SimpleNamespace(monotonic=lambda: len(trained))  # each run takes a second
  monkeypatch.setattr(runs_module, 'time', clock)
  assert command(tmp_path, '--limit_s=4') == STOPPED and len(trained) == 5
  said, progress = capsys.readouterr()
  assert not said and progress.endswith('run the same command again to continue\n')
  assert command(tmp_path, '--limit_s=30') == STOPPED and len(trained) == 36
  details = json.loads((tmp_path / 'found.json').read_text())['details']
  assert details['arms'].keys() == {'small'} and details['verdicts'], 'what is complete is reported'
  capsys.readouterr()
  assert command(tmp_path) == 0
  keys = [json.dumps(flat(config.to_dict()), sort_keys=True) for config in trained]
  assert len(keys) == len(set(keys)) > 36
  assert (tmp_path / 'found.png').stat().st_size > 10_000
  said = capsys.readouterr().out
  assert command(tmp_path) == 0 and len(trained) == len(keys)
  assert capsys.readouterr().out == said
  assert command(tmp_path, '--eval_steps=3') == 0
  assert len(trained) == 2 * len(keys), 'other runs were taken for the same'


def test_the_budgets_are_what_they_say_and_rates_are_tuned(trained, tmp_path):
  assert command(tmp_path, '--seeds=2') == 0
  found = json.loads((tmp_path / 'found.json').read_text())
  assert found['details']['arms'].keys() == SIZES.keys() and all(gate['holds'] for gate in found['gates'])
  for size, arms in found['details']['arms'].items():
    baseline = next(arm for arm in arms if arm['contender'] == BASELINE)
    modern = {arm['budget']: arm for arm in arms if arm['contender'] == MODERN}
    flops = {budget: arm['flops'] / baseline['flops'] for budget, arm in modern.items()}
    assert flops == pytest.approx({'a quarter of the FLOPs': 0.25, 'half the FLOPs': 0.5,
                                   'equal tokens and FLOPs': 1, 'equal time': flops['equal time']}, rel=0.01)
    assert modern['equal tokens and FLOPs']['tokens'] == baseline['tokens'] == SIZES[size].tokens
    assert modern['equal time']['processor'] == pytest.approx(baseline['processor'], rel=0.01)
    assert modern['equal time']['steps'] == pytest.approx(baseline['steps'] / 1.5, abs=1)
    assert {arm['rate'] for arm in arms} == {4e-3} and all(len(arm['losses']) == 2 for arm in arms)
    assert baseline['muon_flops'] == 0 < modern['equal time']['muon_flops']
  without = {arm['contender'] for arm in found['details']['arms']['small']} - {BASELINE, MODERN}
  assert without == {f'{WITHOUT}{ingredient}' for ingredient in contenders.INGREDIENTS}
  assert [one['ingredient'] for one in found['details']['verdicts'] if one['helps']] == ['Muon']


@pytest.mark.slow
def test_parts_are_measured_one_by_one_and_add_up(trained, tmp_path, capsys):
  assert command(tmp_path, '--only=ingredients') == 0
  assert 'without Muon' in capsys.readouterr().out
  assert command(tmp_path, '--size=small', '--only=ends') == 0
  assert command(tmp_path, '--size=large', '--only=ends') == 0
  n = len(trained)
  assert command(tmp_path) == 0 and len(trained) == n


def test_a_recipe_of_other_flops_has_both_budgets(trained, tmp_path, monkeypatch):
  model = {'model.n_inner': 1024, **contenders.fields_of(MODERN)}
  monkeypatch.setattr(comparison, 'fields_of', lambda contender: model)
  assert command(tmp_path, '--seeds=1', '--only=ends', '--size=small') == 0
  baseline, *modern = json.loads((tmp_path / 'found.json').read_text())['details']['arms']['small']
  arms = {arm['budget']: arm for arm in modern}
  assert arms['equal tokens']['tokens'] == baseline['tokens'] > 1.2 * arms['equal FLOPs']['tokens']
  assert arms['equal FLOPs']['flops'] == pytest.approx(baseline['flops'], rel=0.01)


@pytest.mark.parametrize('best, tried', [
  (4e-3, [2e-3, 4e-3, 8e-3]), (16e-3, [2e-3, 4e-3, 8e-3, 16e-3, 32e-3]),
  (1e-3, [5e-4, 1e-3, 2e-3, 4e-3, 8e-3])])
def test_the_best_rate_is_never_at_the_edge_of_those_tried(best, tried, tmp_path):
  def train(config):
    return {'loss': abs(config.optimizer.learning_rate - best)}

  def config_of(rate, seed):
    config = defaults.get_config()
    config.optimizer.learning_rate, config.train.seed = rate, seed
    return config

  rate, losses = runs_module.Runs(tmp_path / 'runs.jsonl', train, None, 1e9).best_rate(config_of, 4e-3, 'x')
  assert rate == best and list(losses) == tried


def test_nothing_is_claimed_below_the_noise_of_the_seeds():
  arm = lambda contender, losses: {'contender': contender, 'budget': comparison.HALF, 'losses': losses}
  verdicts = report.ingredient_verdicts('small', [
    arm(MODERN, [4.30, 4.31, 4.32]), arm(f'{WITHOUT}Muon', [4.50, 4.52, 4.51]),
    arm(f'{WITHOUT}RMSNorm', [4.32, 4.33, 4.31]), arm(f'{WITHOUT}relu^2', [4.10, 4.11, 4.09])])
  assert [(one['ingredient'], one['helps']) for one in verdicts] == [
    ('Muon', True), ('RMSNorm', False), ('relu^2', False)]
  assert verdicts[0]['difference'] == pytest.approx(0.2) and verdicts[0]['spread'] == pytest.approx(0.02)
  said = list(map(report.format_verdict, verdicts))
  assert said[0] == 'without Muon: 0.2000 nats higher, more than the range 0.0200 over seeds'
  assert 'NOT more than the range 0.0200' in said[1] and '0.2100 nats lower, more' in said[2]


def test_the_cost_of_a_loss_lies_between_the_budgets():
  arm = lambda cost, loss: {'flops': cost, 'muon_flops': 0, 'processor': cost, 'tokens': cost,
                            'losses': [loss - 0.01, loss + 0.01]}
  share = lambda loss: report.shares_at_loss([arm(100, loss), arm(50, 4.8), arm(25, 5.2), arm(100, 4.4)])
  assert share(5.0) == dict.fromkeys(report.COSTS, ('', pytest.approx(0.5 ** 1.5)))
  assert share(4.8)['processor time'] == ('', pytest.approx(0.5))
  assert share(5.5)['model FLOPs'] == ('at most ', 0.25)
  assert share(4.3)['model FLOPs'] == ('more than ', 1)


def test_the_recipe_that_is_measured_is_the_one_that_is_shipped():
  shape = {f'model.{field}' for field in ('n_layer', 'n_head', 'n_embd')}
  of_size = shape | {'optimizer.learning_rate', 'optimizer.warmup_steps'}
  base, modern = (flat(files.shipped(name).to_dict()) for name in ('gpt2_fineweb', 'modern'))
  changed = {field for field in modern if field.startswith(('model.', 'optimizer.'))
             and modern[field] != base[field]}
  measured = contenders.fields_of(MODERN)
  assert changed - of_size <= measured.keys()
  assert measured == {field: modern[field] for field in measured}
  assert all(any(measured[field] != defaults.declared()[field].default for field in fields)
             for fields in contenders.INGREDIENTS.values()), 'an ingredient that changes nothing'
  for ingredient, fields in contenders.INGREDIENTS.items():
    assert measured.items() - contenders.fields_of(f'{WITHOUT}{ingredient}').items() == {
      (field, measured[field]) for field in fields}


def test_flops_of_newton_schulz_are_those_of_its_matmuls():
  config = contenders.make_config(TINY, {'optimizer.name': 'muon'}, 1e4, 1e-2, 0, {'tokenizer': ''})
  configs.resolve(config, '')
  # Query, key, value and output projection are 16 x 16; the MLP has 16 x 64 and 64 x 16.
  iteration = lambda m, n: 2 * m * n * m + 2 * m * m * m + 2 * m * m * n
  assert budgets.muon_flops(config) == 5 * (4 * iteration(16, 16) + 2 * iteration(16, 64))
  config.optimizer.name = 'adamw'
  assert budgets.muon_flops(config) == 0


@pytest.fixture
def tiny(monkeypatch):
  """The sizes are one tiny size, with a vocabulary of 300 and sequences of 16 tokens."""
  for name, value in {'SIZES': {'small': TINY}, 'N_CTX': 16, 'N_VOCAB': 300}.items():
    monkeypatch.setattr(contenders, name, value)
  monkeypatch.setattr(comparison, 'SIZES', contenders.SIZES)
  monkeypatch.setattr(report, 'SIZES', contenders.SIZES)
  monkeypatch.setattr(recipes, 'SIZES', contenders.SIZES)
  monkeypatch.setattr(recipes, 'N_VOCAB', 300)


@pytest.fixture
def text(tmp_path):
  lines = [f'The blue stone {i} never sings under the tree of rain {i % 7}.\n' for i in range(2000)]
  (tmp_path / 'text.txt').write_text(''.join(lines))
  return f'text:{tmp_path}/text.txt'


@pytest.mark.slow
def test_training_here_is_training_by_the_job(tiny, text, tmp_path):
  """The same held-out loss, also of a second rate and seed by the same programs."""
  data = dict(corpus=f'{tmp_path}/corpus', source=text, validation_fraction=0.1, tokenizer='train-bpe:300')
  for rate, seed in ((1e-2, 0), (2e-2, 3)):
    config = lambda rate=rate, seed=seed: contenders.make_config(
      TINY, contenders.fields_of(MODERN), 640, rate, seed, data)
    here = config()
    here.eval.update(dict(steps=2, batch_size=8))
    job = here.copy_and_resolve_references()
    job.log.tensorboard = False
    assert loop.pretrain(job, str(tmp_path / f'run{seed}')) == loop.DONE
    records = telemetry.read_metrics(tmp_path / f'run{seed}' / 'metrics.jsonl')
    want = [record['eval/loss'] for record in records if 'eval/loss' in record][-1]
    assert training.train(here, str(tmp_path))['loss'] == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_a_comparison_of_real_runs(tiny, text, tmp_path):
  assert recipes.main([f'--source={text}', f'--workdir={tmp_path}/runs', '--seeds=1', '--eval_steps=4',
                       '--only=ends', f'--out={tmp_path}/found.json']) == 0
  found = json.loads((tmp_path / 'found.json').read_text())
  assert all(1 < row['median'] < 5.7 for row in found['rows'])
