"""The plots of a report, as SVG with the colours of the page, for light and dark mode.

Matplotlib draws in placeholder colours, each of which is replaced by a CSS variable: INK for text and axes,
FAINT for grids and numbers of others, SERIES for lines. `standalone` defines the variables in the drawing
itself, for a separate file.
"""

import io
import math
import re
import textwrap

from gptjax.command import figures
from gptjax.evaluate import paper, percent
from gptjax.report import published, runs

INK, FAINT = '#010101', '#020202'
SERIES = tuple(f'#0303{i:02x}' for i in range(1, 7))
VARIABLES = {INK: '--ink', FAINT: '--faint', **{SERIES[i]: f'--series-{i + 1}' for i in range(6)}}
# The colour-blind safe palette of Okabe & Ito (2008): blue, vermilion, green, purple, orange, sky; darkened
# for light pages and lightened for dark pages.
LIGHT = {'--ink': '#1c1e21', '--faint': '#81868f', '--series-1': '#0063a6', '--series-2': '#c1440e',
         '--series-3': '#00785a', '--series-4': '#a0467f', '--series-5': '#9a6700', '--series-6': '#3a86b7'}
DARK = {'--ink': '#e4e6ea', '--faint': '#8a919c', '--series-1': '#6cb6ff', '--series-2': '#ff8f5c',
        '--series-3': '#4fd1a5', '--series-4': '#e59acb', '--series-5': '#e6b450', '--series-6': '#9ad4f5'}
MARKERS = 'osD^vP'
WIDTH = 9.2  # inches, the width of the page
STYLE = {
  'svg.fonttype': 'none', 'svg.hashsalt': 'gptjax', 'font.family': 'sans-serif', 'font.size': 9,
  'text.color': INK, 'axes.labelcolor': INK, 'axes.edgecolor': INK, 'xtick.color': INK, 'ytick.color': INK,
  'axes.titlecolor': INK, 'axes.titlesize': 9, 'axes.titlelocation': 'left', 'axes.spines.top': False,
  'axes.spines.right': False, 'axes.grid': True, 'grid.color': FAINT, 'grid.alpha': 0.25,
  'grid.linewidth': 0.6, 'axes.linewidth': 0.8, 'lines.linewidth': 1.4, 'lines.markersize': 5,
  'legend.frameon': False,
  'legend.fontsize': 9, 'savefig.transparent': True}
THE_PAPERS, DOTTED = "the paper's GPT-2", {'linewidth': 0.9, 'linestyle': ':', 'color': FAINT}


def drawn(rows, columns, size, draw):
  """The SVG text of a figure with subplots; `draw` is a function of (figure, 2-D array of axes)."""
  import matplotlib
  with matplotlib.rc_context(STYLE):
    figure, axes = figures.figure(rows, columns, size, squeeze=False)
    draw(figure, axes)
    out = io.StringIO()
    figure.savefig(out, format='svg', metadata={'Date': None, 'Creator': None})
  svg = out.getvalue()[out.getvalue().index('<svg'):]
  svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r'font: \1 system-ui, sans-serif', svg)
  return re.sub('|'.join(VARIABLES), lambda match: f'var({VARIABLES[match[0]]})', svg)


def standalone(svg):
  """Return a plot for a separate file, with light and dark colours."""
  rule = lambda values: 'svg { ' + ' '.join(f'{name}: {value};' for name, value in values.items()) + ' }'
  style = f'<style>{rule(LIGHT)} @media (prefers-color-scheme: dark) {{ {rule(DARK)} }}</style>'
  return re.sub(r'(<svg[^>]*>)', lambda match: match[1] + style, svg, count=1)


def _over_size(axes, all_runs, with_paper=True):
  """Make the x axis a logarithmic axis of parameters that includes our models and perhaps the paper's."""
  from matplotlib import ticker
  sizes = [*(published.PARAMETERS.values() if with_paper else ()),
           *(run.model['parameters'] for run in all_runs)]
  axes.set_xscale('log')
  axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
  own_ticks = not with_paper and len({*sizes}) <= 6
  if min(sizes) > 5e7 or own_ticks:
    axes.set_xticks(sorted({*sizes}) if own_ticks else list(published.PARAMETERS.values()))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short_count(value)))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _logarithmic(axes):
  """Make the y axis logarithmic, with plain numbers as ticks unless it spans several decades."""
  from matplotlib import ticker
  axes.set_yscale('log')
  low, high = axes.get_ylim()
  if high > 200 * low:  # powers of ten, as Matplotlib writes them
    return
  ticks = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=ticks))
  axes.yaxis.set_minor_locator(ticker.NullLocator())
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))


def short_count(n):
  """Return 124,439,808 as '124M'."""
  for unit, name in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if n >= 0.9995 * unit:
      return f'{n / unit:.3g}{name}'
  return f'{n:g}'


def _plot_paper(axes, sizes, **more):
  """Plot the paper's numbers, {size: number}."""
  points = sorted((published.PARAMETERS[size], number) for size, number in sizes.items())
  if points:
    style = {'marker': 'o', 'markerfacecolor': 'none', 'linestyle': '--', 'label': THE_PAPERS} | more
    axes.plot(*zip(*points, strict=True), color=FAINT, **style)


def _plot_ours(axes, points, colour, marker, name):
  if points:
    axes.plot(*zip(*sorted(points), strict=True), color=colour, marker=marker, label=name)


def _legend(figure, axes, columns=4):
  """Add one legend above all panels."""
  handles = {}
  for panel in axes.flat:
    handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
  figure.legend(handles.values(), handles.keys(), loc='outside upper left', ncols=columns)


def figure_1(all_runs):
  """Plot score against size for four tasks, like the paper's Figure 1: ours in colour, the paper's dashed."""
  def draw(figure, axes):
    for panel, (task, metric, title, systems) in zip(axes.flat, published.FIGURE_1, strict=True):
      result = next(result for result in paper.PAPER_RESULTS
                    if (result.task, result.metric) == (task, metric))
      for name, score in systems:
        panel.axhline(score, **DOTTED)
        panel.text(1.01, score, name, transform=panel.get_yaxis_transform(), va='center', fontsize=8,
                   color=FAINT)
      _plot_paper(panel, result.sizes)
      points = _points(all_runs, result)
      _plot_ours(panel, points, SERIES[0], 'o', 'ours')
      panel.set_title(title if points else f'{title} (not run)')
      panel.set_ylim(0, 1.08 * max([*result.sizes.values(), *dict(systems).values(),
                                  *(y for _, y in points)]))
      _over_size(panel, all_runs)
    _legend(figure, axes)
    figure.supxlabel('parameters', fontsize=9)
  return drawn(2, 2, (WIDTH, 5.8), draw)


def _points(all_runs, result):
  """[(parameters, number on the paper's scale)] of the runs that have this result of the paper."""
  values = [(run.model['parameters'], runs.value(run, result.task, result.metric)) for run in all_runs]
  return [(size, value * result.scale) for size, value in values if value is not None]


def tasks_over_size(all_runs):
  """Plot each number of the paper's Table 3, and Winograd's, that a run has; '' if there is none."""
  shown = [result for result in paper.PAPER_RESULTS if _points(all_runs, result) and (
    len(set(result.sizes.values())) == 4 or (result.task, result.metric) == ('winograd', 'accuracy_partial'))]
  if not shown:
    return ''
  def draw(figure, axes):
    for panel, result in zip(axes.flat, shown, strict=False):
      _plot_paper(panel, result.sizes)
      if result.sota is not None:
        panel.axhline(result.sota, label='state of the art (2019)', **DOTTED)
      if result.task in published.HUMAN:
        panel.axhline(published.HUMAN[result.task], label='human (read off)', **{**DOTTED, 'linestyle': '-.'})
      points = _points(all_runs, result)
      _plot_ours(panel, points, SERIES[0], 'o', 'ours')
      if result.metric == 'perplexity':
        _logarithmic(panel)
      panel.set_title(textwrap.fill(result.title, 34))
      _over_size(panel, all_runs)
    for panel in axes.flat[len(shown):]:
      panel.set_axis_off()
    _legend(figure, axes)
    figure.supxlabel('parameters', fontsize=9)
  return _panels(len(shown), draw)


def _panels(n, draw):
  rows, columns = math.ceil(n / 3), min(3, n)
  return drawn(rows, columns, (WIDTH / 3 * columns + 0.2, 2.4 * rows + 0.6), draw)


def figure_4(all_runs):
  """Plot training and held-out perplexity over size, like the paper's Figure 4; '' without trained runs.

  Perplexity is per token, so there is a panel for each vocabulary; the paper's numbers are in that of GPT-2.
  """
  points = {}
  for run in all_runs:
    for metric in ('train/loss', 'eval/loss'):
      values = runs.curve(run, metric)[1]
      if values:
        loss = last_mean(values) if metric == 'train/loss' else values[-1]
        of_metric = points.setdefault(run.model.get('n_vocab', 0), {}).setdefault(metric, set())
        of_metric.add((run.model['parameters'], math.exp(min(loss, 50))))
  if not points:
    return ''
  def draw(figure, axes):
    for panel, (n_vocab, mine) in zip(axes.flat, points.items(), strict=True):
      for (name, numbers), marker in zip(published.WEBTEXT.items(), 'os', strict=True):
        if n_vocab == published.N_VOCAB:
          _plot_paper(panel, numbers, label=f'{THE_PAPERS} on WebText, {name} (read off)', marker=marker)
      for (metric, name), colour, marker in zip(
          (('train/loss', 'training'), ('eval/loss', 'held out')), SERIES, MARKERS, strict=False):
        _plot_ours(panel, mine.get(metric, ()), colour, marker, name)
      panel.set(xlabel='parameters', ylabel='perplexity per token')
      if len(points) > 1:
        panel.set_title(f'vocabulary of {n_vocab:,}')
      _logarithmic(panel)
      _over_size(panel, [run for run in all_runs if run.model.get('n_vocab', 0) == n_vocab],
                 with_paper=n_vocab == published.N_VOCAB)
    _legend(figure, axes, columns=2)
  return drawn(1, len(points), (WIDTH * min(1, 0.4 + 0.4 * len(points)), 4.2), draw)


def last_mean(values):
  """Return the mean over the last twentieth of a curve."""
  last = values[-max(1, len(values) // 20):]
  return sum(last) / len(last)


def loss_curves(all_runs):
  """Plot training and held-out loss over steps; '' if no run was trained here."""
  trained = runs.trained(all_runs)
  if not trained:
    return ''
  def draw(figure, axes):
    panel = axes.flat[0]
    for i, run in enumerate(trained):
      colour = SERIES[i % len(SERIES)]
      panel.plot(*runs.curve(run, 'train/loss'), color=colour, linewidth=0.9, alpha=0.7)
      panel.plot(*runs.curve(run, 'eval/loss'), color=colour, marker=MARKERS[i % len(MARKERS)],
                 linestyle='--',
                 label=figures.literal(f'{run.name} ({short_count(run.model["parameters"])})'))
    panel.set(xlabel='step', ylabel='loss, nats per token')
    panel.legend(title='line: training; dashed: held out', alignment='left')
  return drawn(1, 1, (WIDTH * 0.8, 4), draw)


def training_curves(all_runs):
  """Plot learning rate, gradient norm and throughput over steps, as recorded.

  '' if no run was trained here.
  """
  trained = runs.trained(all_runs)
  shown = [(metric, title) for metric, title in (
    ('train/learning_rate', 'learning rate'), ('train/grad_norm', 'gradient norm, before clipping'),
    ('train/tokens_per_second', 'tokens per second')) if any(runs.curve(run, metric)[0] for run in trained)]
  if not shown:
    return ''
  def draw(figure, axes):
    for panel, (metric, title) in zip(axes.flat, shown, strict=True):
      for i, run in enumerate(trained):
        panel.plot(*runs.curve(run, metric), color=SERIES[i % len(SERIES)], linewidth=0.9,
                   label=figures.literal(run.name))
      panel.set_title(title)
      panel.set_ylim(0, None)
    _legend(figure, axes)
    figure.supxlabel('step', fontsize=9)
  return _panels(len(shown), draw)


def tasks_over_steps(all_runs):
  """Plot each task that was run during pretraining; '' if there is none."""
  shown = {}
  for run in all_runs:
    for name in {name: None for record in run.records for name in record if name.count('/') == 2}:
      _, task, metric = name.split('/')
      if name.startswith('eval/') and metric in _first_metrics(task):
        shown.setdefault(name, []).append(run)
  if not shown:
    return ''
  def draw(figure, axes):
    for panel, (name, own) in zip(axes.flat, shown.items(), strict=False):
      for i, run in enumerate(all_runs):
        if run in own:
          steps, values = runs.curve(run, name)
          panel.plot(steps, [percent.to_display(name, value) for value in values],
                     color=SERIES[i % len(SERIES)],
                     marker=MARKERS[i % len(MARKERS)], label=figures.literal(run.name))
      title = name.removeprefix('eval/').replace('/', ', ').replace('_', ' ')
      panel.set_title(figures.literal(textwrap.fill(title, 34)))
    for panel in axes.flat[len(shown):]:
      panel.set_axis_off()
    _legend(figure, axes)
    figure.supxlabel('step', fontsize=9)
  return _panels(len(shown), draw)


def _first_metrics(task):
  """The metrics of a task that are plotted: those in the paper, or the accuracy."""
  return {result.metric for result in paper.PAPER_RESULTS if result.task == task} or {'accuracy'}


def overlap_scores(run):
  """Plot scores by the overlap of examples with the training corpus; '' if all are in one bucket."""
  by_overlap = {task: rows for task, rows in run.overlap.get('by_overlap', {}).items()
           if sum(row['examples'] > 0 for row in rows[1:]) > 1}
  if not by_overlap:
    return ''
  def draw(figure, axes):
    for panel, (task, rows) in zip(axes.flat, by_overlap.items(), strict=False):
      metric = next(name for name in rows[0] if name not in ('bucket', 'examples'))
      buckets = [row for row in rows[1:] if row[metric] is not None]
      panel.bar([figures.literal(f'{row["bucket"]}\n(n = {row["examples"]:,})') for row in buckets],
                [percent.to_display(metric, row[metric]) for row in buckets], color=SERIES[0], width=0.6)
      panel.axhline(percent.to_display(metric, rows[0][metric]), **DOTTED)
      panel.set(title=figures.literal(f'{task}, {metric}'))
      panel.grid(axis='x', visible=False)
    for panel in axes.flat[len(by_overlap):]:
      panel.set_axis_off()
  return _panels(len(by_overlap), draw)
