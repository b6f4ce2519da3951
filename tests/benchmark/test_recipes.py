"""The comparison of recipes: real runs on a small text, resuming, and which differences are significant."""

import json
from pathlib import Path

import pytest

from gptjax.benchmark.subjects import recipes
from gptjax.pretrain import loop


def test_nothing_is_claimed_below_the_noise_of_the_seeds():
  found = recipes.compare_recipes({'adamw': [4.50, 4.52, 4.51], 'muon': [4.30, 4.31, 4.32],
                                   'wsd': [4.50, 4.49, 4.51]})
  assert [(one['of'], one['against'], one['exceeds']) for one in found] == [
    ('muon', 'adamw', True), ('wsd', 'adamw', False), ('wsd', 'muon', True)]
  assert found[0]['difference'] == pytest.approx(-0.2) and found[0]['spread'] == pytest.approx(0.02)
  assert 'Muon, cosine: 0.2000 nats lower than AdamW' in recipes.format_verdict(found[0])
  assert 'NOT more than the range 0.0200' in recipes.format_verdict(found[1])


@pytest.fixture
def fake(monkeypatch):
  """Pretraining leaves only a loss, least at a rate of 4e-3; 'calls': its workdirs, 'stop': after so many."""
  kept = {'calls': [], 'stop': 99}

  def pretrain_at_once(config, workdir):
    if len(kept['calls']) == kept['stop']:
      return loop.STOPPED
    kept['calls'].append(Path(workdir).name)
    loss = 4 + abs(config.optimizer.learning_rate - 4e-3) + 1e-3 * config.train.seed
    records = [{'step': step, 'eval/loss': loss, 'time/steps': 2.0} for step in (2, config.train.steps)]
    Path(workdir).mkdir(parents=True)
    (Path(workdir) / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
    return loop.DONE

  monkeypatch.setattr(loop, 'pretrain', pretrain_at_once)
  return kept


def test_each_run_is_done_once_at_the_rate_that_was_best(fake, tmp_path, capsys):
  flags = ['--source=text:x', f'--workdir={tmp_path}/runs', '--steps=4', '--seeds=2',
           '--rates=2e-3,4e-3,8e-3', f'--out={tmp_path}/found.json']
  fake['stop'] = 11
  assert recipes.main(flags) == loop.STOPPED and not (tmp_path / 'found.json').exists()
  fake['stop'] = 99
  assert recipes.main(flags) == 0
  assert len(fake['calls']) == len(set(fake['calls'])) == 3 * 3 + 2 * 3
  found = json.loads((tmp_path / 'found.json').read_text())
  assert (tmp_path / 'found.png').stat().st_size > 10_000
  assert found['details']['tokens'] == 4 * 8 * 128 and set(found['details']['rates'].values()) == {4e-3}
  assert [(row['least'], row['most'], row['turns']) for row in found['rows']] == [(4, 4.001, 2)] * 3
  said = capsys.readouterr().out
  assert said.count('NOT more than') == 3
  assert recipes.main(flags) == 0 and capsys.readouterr().out == said and len(fake['calls']) == 15
  assert recipes.main([*flags, '--batch_size=4']) == 0
  assert len(fake['calls']) == 30, 'what was run otherwise was taken for the same'


@pytest.mark.slow
def test_recipes_are_real_runs(tmp_path, monkeypatch, shared_data):
  model = dict(n_layer=1, n_head=2, n_embd=16, n_ctx=16, n_vocab=300, scan=True)
  monkeypatch.setattr(recipes, 'MODEL', model)
  flags = [f'--source=text:{shared_data}/text/tinyshakespeare/*', f'--workdir={tmp_path}/runs', '--steps=40',
           '--seeds=1', '--rates=1e-2', '--eval_steps=4', f'--out={tmp_path}/found.json']
  assert recipes.main(flags) == 0
  found = json.loads((tmp_path / 'found.json').read_text())
  assert all(4 < row['median'] < 5.7 for row in found['rows'])


def test_each_recipe_is_what_its_name_says(tmp_path):
  flags = recipes.parse_flags([f'--source=text:{tmp_path}', f'--workdir={tmp_path}'])
  configs = {name: recipes.make_config(flags, name, 1e-3, 7) for name in recipes.RECIPES}
  chosen = {name: (config.optimizer.name, config.optimizer.schedule) for name, config in configs.items()}
  assert chosen == {'adamw': ('adamw', 'cosine'), 'muon': ('muon', 'cosine'), 'wsd': ('adamw', 'wsd')}
  assert all(config.train.seed == 7 and config.optimizer.learning_rate == 1e-3 for config in configs.values())
