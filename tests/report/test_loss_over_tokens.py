"""The held-out loss over tokens, beside published losses: only where they are of the same text and tokens."""

import json
import math
import re

import pytest
from conftest import ROOT, tiny_config

from gptjax import defaults
from gptjax.report import page, runs
from gptjax.report.comparison import loss_over_tokens, published_losses, sizes

TEXT = published_losses.TEXTS['fineweb']


def write_run(folder, *, reference='fineweb', n_vocab=50_257, n_layer=2):
  config = tiny_config()
  config.model.update(dict(n_vocab=n_vocab, n_layer=n_layer))
  config.data.reference = reference
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(
    {'config': config.to_dict(), 'versions': {}, 'devices': ['cpu', 1], 'command': []}))
  records = [{'step': step, 'train/loss': 9 - step / 10, 'eval/loss': 9.1 - step / 10 / n_layer}
             for step in (0, 10, 20)]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
  return folder


def test_the_config_knows_the_texts_that_have_published_losses():
  assert published_losses.TEXTS.keys() == set(defaults.REFERENCES)
  assert not defaults.declared()['data.reference'].domain.holds('pile')


@pytest.mark.parametrize('name', ['gpt2_small', 'gpt2_fineweb', 'gpt1', 'gpt2_wikitext103'])
def test_a_config_expects_the_published_loss_of_its_text(name):
  """The docstring of a recipe's config and the table of published losses have the same figures."""
  text = (ROOT / 'configs' / f'{name}.py').read_text()
  config = {}
  exec(compile(text, name, 'exec'), config)
  found = config['get_config']()
  of_text = published_losses.TEXTS[found.data.reference]
  assert found.model.n_vocab == of_text.n_vocab
  expected = re.findall(r'\d\.\d+', text.partition('Expect')[2].partition('Meant for')[0])
  trained = [one.loss for one in of_text.losses if one.trained]
  assert any(math.isclose(float(number), loss, abs_tol=0.006) for number in expected for loss in trained)


def test_tokens_are_steps_times_sequences_times_their_length(tmp_path):
  run, = runs.read([write_run(tmp_path / 'a')])
  batch, length = run.trained['train']['batch_size'], run.trained['data']['seq_len']
  assert loss_over_tokens.curve(run) == [(10 * batch * length, pytest.approx(8.6)),
                                         (20 * batch * length, pytest.approx(8.1))]


def test_the_report_draws_the_published_losses_of_the_text(tmp_path):
  folders = [write_run(tmp_path / 'a'), write_run(tmp_path / 'b', n_layer=1)]
  page.write(folders, tmp_path / 'out')
  drawn = (tmp_path / 'out' / page.FIGURES / 'loss-over-tokens.svg').read_text()
  for one in TEXT.losses:
    assert f'{one.label}: {one.loss:.2f}' in drawn
  report = (tmp_path / 'out' / 'report.md').read_text()
  assert all(one.source in report for one in TEXT.losses)


def test_losses_of_other_tokens_are_not_drawn(tmp_path):
  page.write([write_run(tmp_path / 'a', n_vocab=290)], tmp_path / 'out')
  assert 'released' not in (tmp_path / 'out' / page.FIGURES / 'loss-over-tokens.svg').read_text()
  assert 'a vocabulary of 290 entries' in (tmp_path / 'out' / 'report.md').read_text()


def test_a_run_without_a_reference_has_no_such_section(tmp_path):
  page.write([write_run(tmp_path / 'a', reference='')], tmp_path / 'out')
  assert 'Loss over tokens' not in (tmp_path / 'out' / 'report.md').read_text()


def test_the_table_over_size_has_one_row_for_each_model(tmp_path):
  small, large = write_run(tmp_path / 'small', n_layer=1), write_run(tmp_path / 'large', n_layer=3)
  evaluated = write_run(tmp_path / 'small-zero-shot', n_layer=1)
  config = json.loads((evaluated / 'config.json').read_text())
  config['config'] |= {'job': 'evaluate', 'init_from': str(small)}
  (evaluated / 'config.json').write_text(json.dumps(config))
  (evaluated / 'metrics.jsonl').unlink()
  (evaluated / 'results.json').write_text(json.dumps({
    'tasks': {'winograd': {'accuracy_partial': 0.625}}, 'model': config['config']['model'], 'grids': {},
    'limit': 8, 'limits': {'winograd': 8}}))
  found = runs.read([evaluated, small, large])
  section, = sizes.sections(found)
  table, = section.blocks
  assert table.head[-1] == 'winograd accuracy partial'
  assert [(row[0], row[3], row[-1]) for row in table.rows] == [
    ('small', '7.100', '62.50*'), ('large', '8.433', None)]
