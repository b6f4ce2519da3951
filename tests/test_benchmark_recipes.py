"""The comparison of recipes: for real on a small text, resumable; what it claims and what it does not."""

import json

import pytest

from gptjax import pretrain
from gptjax.benchmark import recipes


def test_nothing_is_claimed_below_the_noise_of_the_seeds():
  found = recipes.verdicts({'adamw': [4.50, 4.52, 4.51], 'muon': [4.30, 4.31, 4.32],
                            'wsd': [4.50, 4.49, 4.51]})
  assert [(one['of'], one['against'], one['exceeds']) for one in found] == [
    ('muon', 'adamw', True), ('wsd', 'adamw', False), ('wsd', 'muon', True)]
  assert found[0]['difference'] == pytest.approx(-0.2) and found[0]['spread'] == pytest.approx(0.02)
  assert 'Muon, cosine: 0.2000 nats lower than AdamW' in recipes.in_words(found[0])
  assert 'NOT more than the 0.0200' in recipes.in_words(found[1])


def test_each_recipe_is_run_once_at_its_own_rate(tmp_path, monkeypatch, capsys):
  model = dict(n_layer=1, n_head=2, n_embd=16, n_ctx=16, n_vocab=300, scan=True)
  monkeypatch.setattr(recipes, 'MODEL', model)
  (tmp_path / 'text.txt').write_text('the old tree walks under a blue stone and never sings of rain. ' * 200)
  flags = [f'--source=text:{tmp_path}/text.txt', f'--workdir={tmp_path}/runs', '--steps=4', '--seeds=2',
           '--rates=1e-3,1e-2', '--eval_steps=1', f'--out={tmp_path}/found.json']
  assert recipes.main(flags) == 0
  found = json.loads((tmp_path / 'found.json').read_text())
  assert (tmp_path / 'found.png').stat().st_size > 10_000
  details = found['details']
  assert details['tokens'] == 4 * 8 * 16 and details['rates'].keys() == recipes.RECIPES.keys()
  for recipe, rates in details['tried'].items():
    assert details['rates'][recipe] == float(min(rates, key=rates.get))
    assert len(details['runs'][recipe]) == 2
  assert [row['turns'] for row in found['rows']] == [2, 2, 2]
  said = capsys.readouterr().out
  monkeypatch.setattr(pretrain, 'pretrain', None)  # what is finished is not run again
  assert recipes.main(flags) == 0 and capsys.readouterr().out == said
  with pytest.raises(TypeError):  # and nothing that was run otherwise is taken for it
    recipes.main([*flags, '--batch_size=4'])


def test_each_recipe_is_what_its_name_says(tmp_path):
  flags = recipes.parse([f'--source=text:{tmp_path}', f'--workdir={tmp_path}'])
  configs = {name: recipes.make_config(flags, name, 1e-3, 7) for name in recipes.RECIPES}
  chosen = {name: (config.optimizer.name, config.optimizer.schedule) for name, config in configs.items()}
  assert chosen == {'adamw': ('adamw', 'cosine'), 'muon': ('muon', 'cosine'), 'wsd': ('adamw', 'wsd')}
  assert all(config.train.seed == 7 and config.optimizer.learning_rate == 1e-3 for config in configs.values())
