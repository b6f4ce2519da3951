"""Markdown and drawings show text of others as it is: no HTML, no link, no formula comes out of it."""

import json
import re
from types import SimpleNamespace

import pytest

from gptjax.command import figures
from gptjax.data import inspect
from gptjax.evaluate import table as evaluation
from gptjax.finetune import results
from gptjax.report import page, plots, telemetry
from gptjax.storage.files import records
from gptjax.text import markdown

HOSTILE = '<img src=x onerror=alert(1)>|[a](javascript:b)\n\n# `c` $\\frac{$ **d** &lt;'


def is_text(text):
  """Whether nothing of HOSTILE means anything in Markdown."""
  bare = re.sub(r'\\[\\`*<>\[\]#|~$&_]', '', text)
  return not any(mark in bare for mark in ('<img', '](', '$', '&lt', '\n# '))


@pytest.mark.parametrize('text, shown', [
  ('accuracy_partial of 5', 'accuracy_partial of 5'), ('_a_', '\\_a\\_'), ('a|b', 'a\\|b'),
  ('<b>', '\\<b\\>'),
  ('two\nlines', 'two lines'), ('$x$', '\\$x\\$'), (None, ''), (3, '3'), (markdown.bold('a|b'), '**a\\|b**')])
def test_cells(text, shown):
  assert markdown.cell(text) == shown


def test_tables_of_results_show_text_of_others_as_it_is():
  found = {'model': {'name': HOSTILE, 'parameters': 1, 'compute_dtype': 'float32', 'n_layer': 1, 'n_embd': 1,
                     'n_head': 1, 'n_ctx': 1, 'n_vocab': 1}, 'limit': 0, 'tasks': {'lambada': {}},
           'not_run': {'coqa': HOSTILE}, 'notes': {'lambada': [HOSTILE]}, 'grids': {'lambada': [
             {'text': HOSTILE, 'stride': None, 'unit': 'share', 'value': 0.5, 'paper': True}]},
           'rows': {'natural_questions': [['question', HOSTILE], [HOSTILE, True]]},
           'protocols': {'lambada': HOSTILE}}
  found['tasks'] = {}
  assert is_text(evaluation.markdown(found)) and '**0.5**' in evaluation.markdown(found)
  run = {'metrics': {'accuracy': 0.5}}
  assert is_text(results.table(results.collect({HOSTILE: [run]}, {HOSTILE: {}}), {HOSTILE: HOSTILE}))


@pytest.fixture
def workdir(tmp_path):
  folder = tmp_path / 'a$\\frac{$<b>'
  folder.mkdir()
  model = {'n_layer': 1, 'n_embd': 8, 'n_head': 2, 'n_ctx': 8, 'n_vocab': 9, 'parameters': 100}
  config = {'config': {'job': 'pretrain', 'init_from': '', 'model': model}, 'versions': {},
            'devices': ['cpu', 1], 'command': ['python', HOSTILE]}
  (folder / 'config.json').write_text(records.text(config))
  lines = [{'step': step, 'train/loss': 5.0 - step, 'eval/loss': 5.0, 'eval/$\\frac{$/accuracy': 0.5}
           for step in (1, 2, 3)]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(one) + '\n' for one in lines))
  (folder / 'samples.json').write_text(json.dumps([{'prompt': '', 'text': HOSTILE, 'top_k': 40, 'seed': 0}]))
  rows = [{'bucket': f'$\\frac{{$ {i}', 'examples': 3, 'correct': 0.5} for i in range(4)]
  overlap = {'tests': {}, 'filters': {}, 'by_overlap': {HOSTILE: rows}}
  (folder / 'overlap.json').write_text(json.dumps(overlap))
  return folder


def test_a_report_shows_text_of_others_as_it_is(workdir, tmp_path):
  html, text = (path.read_text() for path in page.write([workdir], tmp_path / 'out'))
  assert '<img' not in html and '<b>' not in re.sub(r'<b>(Table|Figure) \d+\.</b>', '', html)
  assert 'a$\\frac{$&lt;b&gt;' in html
  assert is_text(re.sub(r'```text.*?```|<summary>.*?</summary>|\]\(report-figures/.*?\)', '', text,
                        flags=re.DOTALL))
  assert text.startswith('# Training of a\\$\\\\frac{\\$\\<b\\>\n')


def test_names_in_drawings_are_no_formulas(workdir, tmp_path):
  telemetry.plot_curves(workdir, {'a$\\frac{$': 4.0})
  inspect._draw(tmp_path / 'lengths.png', [1], [1, 2], 'a$\\frac{$')
  run = SimpleNamespace(overlap={'by_overlap': {'$\\frac{$': [
    {'bucket': f'$\\frac{{$ {i}', 'examples': 3, 'correct': 0.5} for i in range(4)]}})
  assert r'$\frac{$' in plots.overlap_scores(run)
  assert figures.literal('a$b$\x1b') == 'a\\$b\\$\\x1b'
