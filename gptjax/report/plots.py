"""The drawings of a report, as SVG that takes its colours from the page: readable on light and on dark.

Matplotlib draws in stand-in colours, and each is replaced by a variable of CSS: INK for what is text or axis,
FAINT for grids and what is not ours, SERIES for lines. `alone` gives a drawing the variables' values itself, for
a file of its own.
"""

import io
import math
import re

from gptjax.evaluate import paper
from gptjax.report import published, runs

INK, FAINT = '#010101', '#020202'
SERIES = tuple(f'#0303{i:02x}' for i in range(1, 7))
VARIABLES = {INK: '--ink', FAINT: '--faint', **{colour: f'--series-{i}' for i, colour in enumerate(SERIES, 1)}}
# Blue, vermilion, green, purple, orange, sky (Okabe & Ito 2008, which colour-blind readers tell apart), made
# darker on light pages and lighter on dark ones.
LIGHT = {'--ink': '#1c1e21', '--faint': '#8a8f98', '--series-1': '#0063a6', '--series-2': '#c1440e',
         '--series-3': '#00785a', '--series-4': '#a0467f', '--series-5': '#9a6700', '--series-6': '#3a86b7'}
DARK = {'--ink': '#e4e6ea', '--faint': '#7d848f', '--series-1': '#6cb6ff', '--series-2': '#ff8f5c',
        '--series-3': '#4fd1a5', '--series-4': '#e59acb', '--series-5': '#e6b450', '--series-6': '#9ad4f5'}
MARKERS = 'osD^vP'
STYLE = {
  'svg.fonttype': 'none', 'svg.hashsalt': 'gptjax', 'font.family': 'sans-serif', 'font.size': 9,
  'text.color': INK, 'axes.labelcolor': INK, 'axes.edgecolor': INK, 'xtick.color': INK, 'ytick.color': INK,
  'axes.titlecolor': INK, 'axes.titlesize': 9, 'axes.titlelocation': 'left', 'axes.spines.top': False,
  'axes.spines.right': False, 'axes.grid': True, 'grid.color': FAINT, 'grid.alpha': 0.25, 'grid.linewidth': 0.6,
  'axes.linewidth': 0.8, 'lines.linewidth': 1.4, 'lines.markersize': 5, 'legend.frameon': False,
  'legend.fontsize': 8, 'savefig.transparent': True, 'xtick.minor.visible': False}


def _drawn(rows, columns, size, draw):
  """SVG text of a figure of subplots, which `draw` fills: a function of (figure, 2-D array of axes)."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  with matplotlib.rc_context(STYLE):
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout='constrained', squeeze=False)
    draw(figure, axes)
    out = io.StringIO()
    figure.savefig(out, format='svg', metadata={'Date': None, 'Creator': None})
    pyplot.close(figure)
  svg = out.getvalue()[out.getvalue().index('<svg'):]
  svg = re.sub(r"font: ([\d.]+px|[^;'\"]*?[\d.]+px) [^;\"]*", r'font: \1 system-ui, sans-serif', svg)
  return re.sub('|'.join(VARIABLES), lambda found: f'var({VARIABLES[found[0]]})', svg)


def alone(svg):
  """A drawing for a file of its own, with a light and a dark set of colours."""
  rule = lambda values: 'svg { ' + ' '.join(f'{name}: {value};' for name, value in values.items()) + ' }'
  style = f'<style>{rule(LIGHT)} @media (prefers-color-scheme: dark) {{ {rule(DARK)} }}</style>'
  return re.sub(r'(<svg[^>]*>)', lambda found: found[1] + style, svg, count=1)


def _over_size(axes, label=True):
  """Makes the horizontal axis one of parameters, with the paper's sizes as ticks."""
  from matplotlib import ticker
  axes.set_xscale('log')
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  if label:
    axes.set_xlabel('parameters')


def _short(value):
  """'124M' of 124e6."""
  for unit, name in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if value >= unit:
      return f'{value / unit:.3g}{name}'
  return f'{value:g}'


def _of_paper(axes, sizes, name="paper's GPT-2"):
  """Draws the paper's numbers, {size: number}."""
  points = sorted((published.PARAMETERS[size], number) for size, number in sizes.items())
  if points:
    axes.plot(*zip(*points, strict=True), color=FAINT, marker='o', markerfacecolor='none', linestyle='--', label=name)


def _ours(axes, points, colour, marker, name):
  points = sorted(points)
  if points:
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)


def figure_1(found):
  """Score against size for four tasks, as the paper's Figure 1; ours in colour, the paper's dashed."""
  def draw(figure, axes):
    for panel, (task, metric, title, systems) in zip(axes.flat, published.FIGURE_1, strict=True):
      figure_of = next(one for one in paper.FIGURES if (one.task, one.metric) == (task, metric))
      for name, score in systems:
        panel.axhline(score, color=FAINT, linewidth=0.8, linestyle=':')
        panel.text(0.01, score, name, transform=panel.get_yaxis_transform(), va='bottom', fontsize=7, color=FAINT)
      _of_paper(panel, figure_of.sizes)
      points = _points(found, task, metric, figure_of.scale)
      _ours(panel, points, SERIES[0], 'o', 'ours')
      panel.set_title(title if points else f'{title} (not run)')
      _over_size(panel)
      panel.set_ylim(bottom=0)
      panel.set_xlim(*_span(found))
    axes.flat[0].legend(loc='center right')
  return _drawn(2, 2, (7.4, 5.6), draw)


def _span(found):
  """Both ends of an axis of sizes: ours and the paper's."""
  sizes = [*published.PARAMETERS.values(), *(run.model['parameters'] for run in found)]
  return min(sizes) / 1.5, max(sizes) * 1.5


def _points(found, task, metric, scale):
  return [(run.model['parameters'], runs.value(run, task, metric) * scale) for run in found
          if runs.value(run, task, metric) is not None]


def tasks_over_size(found):
  """A panel for each number of the paper's Table 3 that any of the runs has; '' if none has."""
  shown = [figure for figure in paper.FIGURES if _points(found, figure.task, figure.metric, figure.scale)
           and (len(figure.sizes) == 4 or figure.task == 'winograd')]
  if not shown:
    return ''
  def draw(figure, axes):
    for panel, one in zip(axes.flat, shown, strict=False):
      _of_paper(panel, one.sizes)
      if one.sota is not None:
        panel.axhline(one.sota, color=FAINT, linewidth=0.8, linestyle=':')
        panel.text(0.01, one.sota, 'state of the art then', transform=panel.get_yaxis_transform(), va='bottom',
                   fontsize=7, color=FAINT)
      _ours(panel, _points(found, one.task, one.metric, one.scale), SERIES[0], 'o', 'ours')
      if one.scale == 1:
        panel.set_yscale('log')
      panel.set_title(one.title)
      _over_size(panel, label=False)
      panel.set_xlim(*_span(found))
    for panel in axes.flat[len(shown):]:
      panel.set_axis_off()
    axes.flat[0].legend(loc='best')
    figure.supxlabel('parameters', fontsize=9)
  rows = math.ceil(len(shown) / 3)
  return _drawn(rows, min(3, len(shown)), (2.6 * min(3, len(shown)) + 0.4, 2.4 * rows + 0.3), draw)


def figure_4(found):
  """Training and held-out perplexity over size, as the paper's Figure 4; '' where no run was trained here."""
  points = {name: [] for name in ('train', 'held out')}
  for run in found:
    for name, metric in (('train', 'train/loss'), ('held out', 'eval/loss')):
      if values := runs.curve(run, metric)[1]:
        last = values[-max(1, len(values) // 20):] if name == 'train' else values[-1:]
        points[name].append((run.model['parameters'], math.exp(min(sum(last) / len(last), 50))))
  if not any(points.values()):
    return ''
  def draw(figure, axes):
    panel = axes.flat[0]
    for name, numbers in published.WEBTEXT.items():
      _of_paper(panel, numbers, f"paper's GPT-2 on WebText, {name} (read off)")
    for (name, values), colour, marker in zip(points.items(), SERIES, MARKERS, strict=False):
      _ours(panel, set(values), colour, marker, name)
    panel.set(ylabel='perplexity a token', yscale='log')
    _over_size(panel)
    panel.set_xlim(*_span(found))
    panel.legend()
  return _drawn(1, 1, (5.6, 3.6), draw)


def loss_curves(found):
  """Training and held-out loss over steps; '' where no run was trained here."""
  trained = list({str(run.records): run for run in found if runs.curve(run, 'train/loss')[0]}.values())
  if not trained:
    return ''
  def draw(figure, axes):
    panel = axes.flat[0]
    for i, run in enumerate(trained):
      colour = SERIES[i % len(SERIES)]
      panel.plot(*runs.curve(run, 'train/loss'), color=colour, linewidth=0.9, alpha=0.7)
      panel.plot(*runs.curve(run, 'eval/loss'), color=colour, marker=MARKERS[i % len(MARKERS)], linestyle='--',
                 label=f'{run.name}, {_short(run.model["parameters"])}')
    panel.plot([], [], color=INK, linewidth=0.9, label='training')
    panel.plot([], [], color=INK, linestyle='--', label='held out')
    panel.set(xlabel='step', ylabel='loss, nats a token')
    panel.legend()
  return _drawn(1, 1, (6.4, 3.8), draw)


def overlap_scores(run):
  """Score by how much of an example was in the training corpus; '' where that was not looked up."""
  found = {task: rows for task, rows in run.overlap.get('by_overlap', {}).items() if len(rows) > 2}
  if not found:
    return ''
  def draw(figure, axes):
    for panel, (task, rows) in zip(axes.flat, found.items(), strict=False):
      metric = next(name for name in rows[0] if name not in ('bucket', 'examples'))
      buckets = [row for row in rows[1:] if row[metric] is not None]
      panel.bar([f'{row["bucket"]}\n(n = {row["examples"]:,})' for row in buckets],
                [row[metric] for row in buckets], color=SERIES[0], width=0.6)
      panel.axhline(rows[0][metric], color=FAINT, linewidth=0.8, linestyle=':')
      panel.set(title=f'{task}, {metric}')
      panel.grid(axis='x', visible=False)
    for panel in axes.flat[len(found):]:
      panel.set_axis_off()
  rows = math.ceil(len(found) / 3)
  return _drawn(rows, min(3, len(found)), (2.6 * min(3, len(found)) + 0.4, 2.4 * rows), draw)
