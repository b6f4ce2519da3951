"""Figure 5: how much of samples and of real text is in the training text."""

from gptjax.command import figures
from gptjax.report import plots
from gptjax.report.document import Figure, Table

# Of its caption.
PAPER = [["the paper: samples of GPT-2, top-k 40", None, 'over 30', 'most', None],
         ["the paper: WebText's test set", None, None, None, '2.6']]


def blocks(run, name):
  """Return the figure and its table of a run's overlap.json; [] if it has no samples.

  Args:
    run: runs.Run.
    name: of the run, in the name of the drawing's file.
  """
  cdf = run.overlap.get('cdf', {})
  if not cdf:
    return []
  rows = [[text, f'{row["documents"]:,}', f'{100 * row["none"]:.1f}', f'{100 * row["below_1_percent"]:.1f}',
           f'{100 * row["median"]:.2f}'] for text, row in cdf.items()]
  return [Figure(f'figure-5-{name}', _drawing(cdf), 'As the paper\'s Figure 5: the share of the texts '
                 '(vertical) of which at most so many per cent of the 8-grams are in the training text. A '
                 'line begins on the left at the share of the texts with 0.1 % or less.'),
          Table(['texts', 'number', 'without any, %', 'under 1 %, %', 'median, %'], [*rows, *PAPER],
                'Texts by how many per cent of their 8-grams are also in the training text, '
                f'{run.name}; texts of fewer than eight words are left out.')]


def _drawing(cdf):
  def draw(figure, axes):
    panel = axes.flat[0]
    for i, (text, row) in enumerate(cdf.items()):
      shares = row['shares']
      x = [0.0, *(100 * share for share in shares), 100.0]
      y = [0.0, *((k + 1) / len(shares) for k in range(len(shares))), 1.0]
      panel.step(x, y, where='post', color=plots.SERIES[i % len(plots.SERIES)], label=figures.literal(text))
    panel.set(xscale='log', xlim=(0.1, 100), ylim=(0, 1.02), xlabel='8-grams in the training text, per cent',
              ylabel='share of the texts')
    panel.xaxis.set_major_formatter(lambda value, _: f'{value:g}')
    panel.legend()
  return plots.drawn(1, 1, (plots.WIDTH * 0.8, 3.8), draw)
