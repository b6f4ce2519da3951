"""The appendix of the GPT-2 paper in a report: samples in columns, recital, and Figure 5."""

import html as html_text
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from gptjax.evaluate.samples import store
from gptjax.report import html, markdown, plots, published
from gptjax.report.appendix import figure_5, recital, samples
from gptjax.report.document import Section, SideBySide

ODD = '<b>"a|b" & `c` $x$</b>\n```\nend'


def sample(key=1, **changes):
  values = dict(id=str(key), weights='w', group='g', title='title', prompt='the prompt', text='some text',
                reference=' the rest', prompt_tokens=2, tokens=3, max_tokens=3, finish='length', number=key,
                temperature=1.0, top_k=40, seed=0, log_prob=-3.0)
  return store.Sample(**{**values, **changes})


def write(folder, kind, *written):
  with store.appending(store.path_of(folder, kind), []) as append:
    append({'weights': 'w', 'ids': [one.id for one in written]})
    for one in written:
      append(one._asdict())
  return SimpleNamespace(name=folder.name, folder=folder, model={'parameters': 1000})


def test_columns_are_text_whatever_is_in_them():
  sections = [Section('s', [SideBySide([('one', ODD), (f'two {ODD}', 'plain')])])]
  page = html.page('t', sections)
  assert page.count('<div class="columns">') == 1 and '<b>"a' not in page and html_text.escape(ODD) in page
  text = markdown.page('t', sections, '')
  assert f'\n````text\n{ODD}\n````\n' in text and text.index('one') < text.index('two') < text.index('plain')


def test_each_line_of_the_papers_first_figures_has_its_name():
  values = {'coqa': {'f1': 0.5}, 'cbt_cn': {'accuracy': 0.9}, 'cbt_ne': {'accuracy': 0.8}}
  run = SimpleNamespace(name='run', model={'parameters': 10**8}, results={'tasks': values})
  drawn = plots.figure_1([run])
  for *_, systems in published.FIGURE_1:
    for name, _ in systems:
      assert all(html_text.escape(line) in drawn for line in name.split('\n')), name
  assert 'human (read off)' in plots.tasks_over_size([run])
  without = SimpleNamespace(**{**vars(run), 'results': {'tasks': {'ptb': {'perplexity': 30.0}}}})
  assert 'human' not in plots.tasks_over_size([without])
  means = {name: score for *_, systems in published.FIGURE_1 for name, score in systems}
  assert means['PGNet'] == round((36.44 + 15.66 + 33.42) / 3, 2)


def test_models_without_a_common_context_are_not_compared(tmp_path):
  runs = [write(tmp_path / name, store.CONTEXTS, sample(group=f'of {name}')) for name in 'ab']
  section, = samples.sections(runs)
  assert len(section.blocks) == 1 and 'no context that is the same' in section.blocks[0].text
  assert not list(samples.sections([SimpleNamespace(name='c', folder=tmp_path / 'c')]))


def test_one_model_is_shown_alone(tmp_path):
  section, = samples.sections([write(tmp_path / 'a', store.CONTEXTS, sample())])
  columns, = [block for block in section.blocks if isinstance(block, SideBySide)]
  assert columns.columns == [('a (1,000 parameters)', 'some text')]


@pytest.mark.parametrize('prompt', ['word ' * 300, 'x' * 900, 'one two'])
def test_of_a_context_the_end_is_shown(prompt):
  shown = samples._end(prompt)
  assert prompt.endswith(shown) and 0 < len(shown) <= len(prompt) and len(shown) < 0.4 * len(prompt) + 5


def test_a_sample_without_tokens_is_not_the_best():
  empty, good = sample(1, tokens=0, text='', log_prob=None), sample(2, log_prob=-30.0)
  assert samples.best_of([empty, good], None)[0] == good and samples.best_of([empty, good], 1)[0] == empty
  assert samples.best_of([empty], None)[0] == empty


def test_the_recital_table_has_a_row_for_each_way_of_decoding(tmp_path):
  written = [sample(1, temperature=0.0, top_k=0, text=' The rest.', reference=' The rest. Of it'),
             *(sample(2 + i, number=i + 1, text=text, reference=' The rest. Of it') for i, text in
               enumerate((' the rest of', ' The end', ' The rest. Of it')))]
  section, = recital.sections([write(tmp_path / 'a', store.RECITAL, *written)])
  rows = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in section.blocks[1].rows]
  assert rows == [['title', 'a', 'greedy', '1', '4', '2', '2'],
                  ['title', 'a', 'top-k 40, seed 0', '3', '4', '1 (max. 4)', '3 (max. 4)']]


def test_the_drawing_begins_at_the_share_without_overlap(tmp_path):
  row = {'documents': 4, 'short': 1, 'none': 0.5, 'below_1_percent': 0.5, 'median': 0.01,
         'shares': [0.0, 0.0, 0.02, 0.5]}
  run = SimpleNamespace(name='run', overlap={'cdf': {ODD.split('\n')[0]: row}})
  figure, table = figure_5.blocks(run, 'run')
  ElementTree.fromstring(figure.svg)
  assert table.rows[0][1:] == ['4', '50.0', '50.0', '1.00'] and not re.findall(r'#[0-9a-f]{6}\b', figure.svg)
  assert figure_5.blocks(SimpleNamespace(name='run', overlap={}), 'run') == []
