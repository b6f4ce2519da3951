"""The report: what it says is what the workdirs hold, and a browser shows all of it."""

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import pytest
from conftest import ENVIRONMENT, ROOT, tiny_config

from gptjax.evaluate import paper
from gptjax.report import markdown, plots, published
from gptjax.report import page as pages
from gptjax.report import runs as read_runs
from gptjax.report.__main__ import main

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
VERSIONS = {'gptjax': '0', 'jax': '0'}
ODD = '<b>"a|b" & `c` *d* _e_ ünï 日本</b>'


def write_run(folder, size, *, tasks, records, overlap=None, samples=None, limits=None):
  """A workdir of an evaluation, with invented numbers; `tasks` {name: {metric: value}}, `limits` by task."""
  layers, width = paper.SIZES[size]
  config = tiny_config()
  config.model.update(dict(n_layer=layers, n_embd=width, n_head=width // 64, n_ctx=1024, n_vocab=50257))
  config.job, config.init_from = 'evaluate', 'weights'
  folder.mkdir(parents=True)
  files = {
    'config.json': {'config': config.to_dict(), 'versions': VERSIONS, 'devices': ['cpu', 1],
                    'command': ['python', '-m', 'gptjax.main', f'--workdir={ODD}']},
    'results.json': {
      'tasks': tasks, 'limits': limits or {},
      'not_run': {'1bw': ODD}, 'weights': 'ab' * 32, 'limit': 0, 'seconds': {},
      'model': {**config.model.to_dict(), 'name': ODD, 'parameters': published.PARAMETERS[size]},
      'versions': VERSIONS, 'devices': ['cpu', 1], 'protocols': {'lambada': ODD},
      'rows': {'natural_questions': [['question', 'answer', 'right'], [ODD, 'Darwin', True]]},
      'grids': {'wikitext2': [
        {'text': text, 'stride': stride, 'unit': unit, 'value': 30 + i, 'paper': i == 0}
        for i, (text, stride, unit) in enumerate([('de-tokenized', 1024, 'word'), ('raw', 32, 'token')])]}},
    'overlap.json': overlap, 'samples.json': samples}
  for name, content in files.items():
    if content is not None:
      (folder / name).write_text(json.dumps(content))
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
  return folder


FILTER = {'eightgrams': 4000, 'distinct': 3999, 'bytes': 10**6, 'hashes': 27, 'found': 0, 'strings': 10**7,
          'tests': 2 * 10**7, 'passed': 10**7, 'measured': 7.5e-9, 'expected': 6.6e-9, 'rate': 1e-8,
          'sources': [ODD]}
OVERLAP = {
  'tests': {'wikitext2': {'documents': 1, 'eightgrams': 206374, 'own': 0.0016, 'train': 0.0163,
                          'documents_with_any': 1, 'documents_with_much': 0},
            'mine': {'documents': 7, 'eightgrams': 100, 'own': None, 'train': 0.5, 'documents_with_any': 4,
                     'documents_with_much': 2}},
  'filters': {'train': FILTER},
  'by_overlap': {'lambada': [{'bucket': name, 'examples': n, 'correct': score, 'perplexity': 20 / (score + 1)}
                             for name, n, score in (('all', 10, 0.4), ('0%', 6, 0.3), ('0% to 15%', 3, 0.5),
                                                    ('over 15%', 1, 0.9))]}}


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  """A run of each of the paper's sizes, with the paper's numbers made two per cent worse."""
  folder, made = tmp_path_factory.mktemp('runs'), []
  for i, size in enumerate(paper.SIZES):
    tasks = {}
    for one in paper.PAPER_RESULTS:
      value = one.sizes.get(size) or one.sizes.get('1558M') or 40
      tasks.setdefault(one.task, {})[one.metric] = value / one.scale * 1.02
    tasks.pop('1bw')
    records = [{'step': step, 'train/loss': 9 * step**-(0.13 + 0.01 * i), 'train/tokens_per_second': 1e4,
                **({'eval/loss': 9.2 * step**-(0.13 + 0.01 * i), 'eval/lambada/perplexity': 9e4 / step,
                    'eval/loss/one': 1.0} if step % 200 == 0 else {})}
               for step in range(20, 1001, 20)]
    samples = [{'prompt': prompt, 'text': f'{ODD} and so on. ' * 20, 'top_k': 40, 'seed': 0}
               for prompt in ('', 'Once')]
    made.append(write_run(folder / size, size, tasks=tasks, records=records,
                          **({} if i else {'overlap': OVERLAP, 'samples': samples})))
  return made


@pytest.fixture(scope='module')
def written(workdirs, tmp_path_factory):
  return pages.write(workdirs, tmp_path_factory.mktemp('out'))


class Reader(html.parser.HTMLParser):
  """The text of a page; it fails where an element is not closed, or one is loaded from elsewhere."""

  VOID = ('meta', 'br', 'img', 'link', 'hr')

  def __init__(self):
    super().__init__()
    self.text, self.open, self.tags = '', [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    for name, value in attributes:
      loads = name in ('src', 'href', 'xlink:href') and not value.startswith('#')
      assert not loads and 'url(' not in (value or '').replace('url(#', ''), (tag, name, value)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if tag not in self.VOID:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def read(path):
  reader = Reader()
  reader.feed(path.read_text())
  assert not reader.open
  return reader


def test_the_page_needs_nothing_but_itself(written):
  reader = read(written[0])
  assert not {'script', 'link', 'img', 'iframe', 'object'} & set(reader.tags)
  assert '@import' not in written[0].read_text()
  policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)">', written[0].read_text())[1]
  assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'") and 'script' not in policy
  assert reader.tags.count('svg') == 7


def test_text_of_users_is_text(written):
  assert read(written[0]).text.count(ODD) > 20
  assert '<b>"a' not in written[1].read_text().replace('```text', '').split('## ')[1]


def test_numbers_stand_beside_the_papers(written):
  text = re.sub(r'<[^>]+>', ' ', written[0].read_text())
  row = re.search(r'WikiText-2, perplexity\s+(.*?)\n', text)[1].split()
  ours = [f'{1.02 * value:.2f}' for value in (29.41, 22.76, 19.93, 18.34)]
  assert row == [*ours, '29.41', '22.76', '19.93', '18.34', '39.14']
  accuracy = re.search(r'LAMBADA, accuracy \(last word, no stop words\)\s+(.*?)\n', text)[1].split()
  assert accuracy[0] == f'{45.99 * 1.02:.2f}' and accuracy[-1] == '59.23'


def test_fractions_are_shown_in_per_cent(workdirs, tmp_path):
  """Of tasks that the paper has and has not, in grids and by overlap; starred where a task was cut."""
  shutil.copytree(workdirs[0], tmp_path / 'run')
  path = tmp_path / 'run' / 'results.json'
  found = json.loads(path.read_text())
  found['tasks'] |= {'cola': {'matthews': 0.0647, 'threshold': -5.5}, 'sst2': {'accuracy': 0.545}}
  found['limits'] = {'lambada': 0, 'sst2': 8}
  found['grids']['lambada'] = [{'text': 'raw', 'stride': None, 'unit': unit, 'value': value, 'paper': False}
                               for unit, value in (('accuracy_last_word', 0.3125), ('perplexity', 0.96))]
  path.write_text(json.dumps(found))
  text = pages.write([tmp_path / 'run'], tmp_path / 'run')[1].read_text()
  rows = [[cell.strip(' *\\') for cell in line.strip('|').split('|')] for line in text.split('\n')]
  row = lambda title: next(cells[1] for cells in rows if cells[0] == title)
  assert row("CoLA by GPT-1's heuristic, matthews") == '6.47'
  assert row("CoLA by GPT-1's heuristic, threshold") == '-5.50'
  assert ['raw', '31.25', '0.960'] in [cells[:3] for cells in rows]
  assert ['all', '10', '40.00', '14.29'] in [cells[:4] for cells in rows], 'correct, perplexity'
  assert '54.50\\*' in text and '5.50\\*' not in text.replace('54.50', '')
  assert "run: the first examples of some tasks (8 of sst2)" in text
  run, = read_runs.read([tmp_path / 'run'])
  drawn = plots.overlap_scores(run)
  assert '>80<' in drawn or '80' in re.findall(r'>\s*(\d+)\s*<', drawn)


def test_what_was_not_run_has_no_number(written):
  for path in written:
    rows = [line for line in re.sub(r'</?t[dr][^>]*>', '|', path.read_text()).split('\n')
            if '1 Billion Words' in line and '75.2' in line]
    assert rows and all(row.count('not run') == 4 for row in rows)


def test_markdown_says_what_the_page_says(written):
  page, text = read(written[0]).text, written[1].read_text()
  for value in ('206,374', '1.63', '7.5e-09', '4,000', '46.91', 'over 15%', 'de-tokenized, stride 1024'):
    assert value in page and value in text, value
  assert text.count('\n## ') == written[0].read_text().count('<h2>')
  for line in text.split('\n'):
    if line.startswith('!['):
      figure = written[1].parent / re.search(r'\]\((.*)\)$', line)[1]
      ElementTree.parse(figure)
      assert 'prefers-color-scheme' in figure.read_text()


def test_markdown_tables_are_rectangles(written):
  cells = lambda line: len(re.findall(r'(?<!\\)\|', line))
  for block in re.findall(r'(?:^\|.*\n)+', written[1].read_text(), re.M):
    assert len({cells(line) for line in block.strip().split('\n')}) == 1, block


def test_verbatim_text_cannot_end_its_fence():
  text = markdown.page('t', [pages.Section('s', [pages.Verbatim('v', 'a\n```\n````\nb')])], '')
  assert '\n`````text\na\n```\n````\nb\n`````\n' in text


def test_drawings_take_all_colours_from_the_page(written):
  for svg in re.findall(r'<svg.*?</svg>', written[0].read_text(), re.S):
    ElementTree.fromstring(svg)
    assert not re.findall(r'#[0-9a-f]{6}\b', svg.replace('url(#', '')), 'a colour that no theme changes'
    assert 'var(--ink)' in svg and '<text' in svg
  text = written[0].read_text()
  for colours in (plots.LIGHT, plots.DARK):
    assert all(f'{name}: {value};' in text for name, value in colours.items())


def contrast(one, other):
  """Of two colours '#rrggbb', by WCAG 2."""
  light = lambda c: c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
  luminance = lambda colour: sum(weight * light(int(colour[at:at + 2], 16) / 255)
                                 for weight, at in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))
  high, low = sorted((luminance(one), luminance(other)), reverse=True)
  return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize('colours, page', [(plots.LIGHT, '#ffffff'), (plots.DARK, '#15171a')])
def test_colours_can_be_read(colours, page):
  assert contrast(colours['--ink'], page) > 7
  assert all(contrast(colour, page) > 3 for colour in colours.values())


def test_characters_that_matplotlibs_font_lacks_are_drawn_by_the_viewer():
  with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter('always')
    svg = plots.drawn(1, 1, (3, 2), lambda figure, axes: axes[0, 0].set_title('\u65e5\u672c'))
  assert '\u65e5\u672c' in svg and not warned


def test_a_report_is_the_same_twice(workdirs, written, tmp_path):
  again = pages.write(list(reversed(workdirs)), tmp_path)
  assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_figure_4_is_exp_of_the_last_losses(written, workdirs):
  svg = (written[1].parent / 'report-figures' / 'figure-4.svg').read_text()
  assert 'held out' in svg and 'paper' in svg
  last = json.loads((workdirs[0] / 'metrics.jsonl').read_text().strip().split('\n')[-1])
  run, = read_runs.read(workdirs[:1])
  assert read_runs.curve(run, 'eval/loss')[1][-1] == last['eval/loss']
  assert math.exp(last['eval/loss']) > 1


def test_perplexities_of_other_vocabularies_are_not_in_one_panel(workdirs):
  runs = read_runs.read(workdirs[:2])
  assert 'on WebText' in plots.figure_4(runs) and 'vocabulary of' not in plots.figure_4(runs)
  other = runs[1]._replace(model={**runs[1].model, 'n_vocab': 258})
  both = plots.figure_4([runs[0], other])
  assert 'on WebText' in both and 'vocabulary of 50,257' in both and 'vocabulary of 258' in both
  assert 'on WebText' not in plots.figure_4([other])


def test_the_papers_figures_are_those_that_it_prints():
  of = {(one.task, one.metric): one for one in paper.PAPER_RESULTS}
  assert of['natural_questions', 'exact_match'].sizes == {'1558M': 4.1}
  assert of['coqa', 'f1'].sota is None and of['coqa', 'f1'].sizes == {'1558M': 55}
  for (task, _), one in of.items():
    assert task not in ('cbt_cn', 'cbt_ne') or 'validation' in one.title
  assert all(not reproduction.is_comparable for reproduction in paper.REPRODUCTIONS
             if 'validation' in reproduction.protocol)


def test_a_run_of_pretraining_alone(workdirs, tmp_path):
  shutil.copytree(workdirs[0], tmp_path / 'run')
  for name in ('results', 'overlap', 'samples'):
    (tmp_path / 'run' / f'{name}.json').unlink()
  reader = read(pages.write([tmp_path / 'run'], tmp_path / 'run')[0])
  assert 'Training' in reader.text and 'Results' not in reader.text and reader.tags.count('svg') == 4


def cells(path, run):
  """The cells of a run's row in the table of how training ended, in report.md."""
  text = path.read_text()
  rows = text[text.index('| run | steps | tokens seen'):].split('\n\n')[0].split('\n')
  named = [line.strip('| ').split(' | ') for line in rows]
  return dict(zip(named[0], next(row for row in named[2:] if row[0] == run), strict=True))


def test_how_training_ended(workdirs, tmp_path):
  """The table has the last numbers of metrics.jsonl, and '-' for what an older version did not record."""
  shutil.copytree(workdirs[0], tmp_path / 'run')
  (tmp_path / 'run' / 'results.json').unlink()
  last = {'train/learning_rate': 1e-4, 'train/grad_norm': 0.5, 'train/tokens_per_second': 2e4}
  records = [{'step': 10, 'train/loss': 5.0, **last},
             {'step': 10, 'eval/loss': 4.5, 'eval/bits_per_byte': 2.0},
             {'step': 2000, 'train/loss': 3.25, **last},
             {'step': 2000, 'eval/loss': 3.5, 'eval/bits_per_byte': 1.125},
             {'step': 2000, 'time/run': 9.0}]
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  metrics.write_text(''.join(json.dumps(record) + '\n' for record in records))
  config = tiny_config()
  tokens = f'{2000 * config.train.batch_size * config.data.seq_len:,}'
  page, text = pages.write([tmp_path / 'run'], tmp_path / 'run')
  assert cells(text, 'run') == {
    'run': 'run', 'steps': '2,000', 'tokens seen': tokens, 'training loss': '3.2500',
    'held-out loss': '3.5000', 'held-out perplexity': f'{math.exp(3.5):.2f}',
    'held-out bits per byte': '1.125'}
  drawn = (text.parent / 'report-figures' / 'training.svg').read_text()
  for title in ('learning rate', 'gradient norm', 'tokens per second'):
    assert title in drawn and title in page.read_text()
  records[3].pop('eval/bits_per_byte')
  metrics.write_text(''.join(json.dumps(record) + '\n' for record in records))
  assert cells(pages.write([tmp_path / 'run'], tmp_path / 'run')[1], 'run')['held-out bits per byte'] == '-'
  metrics.write_text(json.dumps(records[0]) + '\n')
  found = cells(pages.write([tmp_path / 'run'], tmp_path / 'run')[1], 'run')
  assert found['training loss'] == '5.0000' and found['held-out loss'] == found['held-out perplexity'] == '-'


def test_an_evaluation_shows_the_curves_of_the_run_that_it_evaluates(workdirs, tmp_path):
  shutil.copytree(workdirs[0], tmp_path / 'evaluation')
  (tmp_path / 'evaluation' / 'metrics.jsonl').unlink()
  path = tmp_path / 'evaluation' / 'config.json'
  config = json.loads(path.read_text())
  config['config']['init_from'] = str(workdirs[1])
  path.write_text(json.dumps(config))
  assert 'Training loss' in read(pages.write([tmp_path / 'evaluation'], tmp_path)[0]).text


@pytest.mark.ci
def test_the_command(workdirs, tmp_path):
  ran = subprocess.run([sys.executable, '-m', 'gptjax.report', f'--out={tmp_path}', *(
    f'--workdir={workdir}' for workdir in workdirs)], cwd=ROOT, capture_output=True, text=True,
    env=ENVIRONMENT, timeout=120)
  assert ran.returncode == 0 and not ran.stderr, ran.stderr
  assert ran.stdout.split('\n')[:2] == [f'{tmp_path}/report.html', f'{tmp_path}/report.md']
  (tmp_path / 'config.json').write_text('{')
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'config.json').write_text('{"model_type": "gpt2"}')
  for flags, says in ((['--workdir=nowhere'], 'does not exist'), ([f'--workdir={ROOT}'], 'no config.json'),
                      ([f'--workdir={tmp_path}/model'], 'no config.json of a run'),
                      ([f'--workdir={workdirs[0]}'] * 2, 'listed twice'),
                      ([f'--workdir={tmp_path}'], 'is damaged')):
    with pytest.raises(ValueError, match=says) as error:
      main(flags)
    assert '\n' not in str(error.value)


@pytest.mark.skipif(not BROWSER, reason='needs a browser: chromium')
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_a_browser_shows_it(written, tmp_path, theme):
  """Chromium lays the page out without a complaint, no table or drawing is wider than it, and text is dark on
  light or light on dark."""
  probe = '''<script>addEventListener('load', () => {
    const page = document.documentElement, svg = [...document.querySelectorAll('svg')];
    const ink = getComputedStyle(document.body).color;
    const text = getComputedStyle(document.querySelector('svg text'));
    document.title = JSON.stringify({
      wide: page.scrollWidth > page.clientWidth, height: page.scrollHeight, ink, drawn: text.fill,
      page: getComputedStyle(document.body).backgroundColor,
      drawings: svg.map(one => one.getBoundingClientRect().width * one.getBoundingClientRect().height)});
  });</script>'''
  copy = tmp_path / 'page.html'
  page = written[0].read_text().replace('</body>', f'{probe}</body>')
  copy.write_text(page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'"))
  flags = [f'--blink-settings=preferredColorScheme={["dark", "light"].index(theme)}']
  flags += ['--headless', '--no-sandbox', '--disable-gpu', '--window-size=1100,1400', '--dump-dom']
  ran = subprocess.run([BROWSER, *flags, f'--user-data-dir={tmp_path}/profile', f'file://{copy}'],
                       capture_output=True, text=True, timeout=60)
  seen = json.loads(html.unescape(re.search(r'<title>(.*?)</title>', ran.stdout)[1]))
  assert not seen['wide'] and seen['height'] > 3000
  assert len(seen['drawings']) == 7 and min(seen['drawings']) > 50_000
  assert seen['ink'] == seen['drawn']
  colour = lambda text: '#' + ''.join(f'{int(c):02x}' for c in re.findall(r'\d+', text)[:3])
  assert contrast(colour(seen['ink']), colour(seen['page'])) > 7
  assert (colour(seen['page']) == '#ffffff') == (theme == 'light')


def test_gpt1_is_no_size_of_gpt2():
  from gptjax.evaluate import paper
  assert paper.released_size({'n_layer': 12, 'n_embd': 768, 'norm': 'before'}) == '124M'
  assert paper.released_size({'n_layer': 12, 'n_embd': 768, 'norm': 'after'}) is None
