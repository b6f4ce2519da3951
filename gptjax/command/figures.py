"""Matplotlib figures, drawn by its Agg backend whatever the environment selects."""

import io
import warnings

from gptjax.storage.files import access
from gptjax.text.printable import printable


def literal(text):
  """Escape a label or title: Matplotlib renders text between two $ as a formula."""
  return printable(text, '\n').replace('$', r'\$')


def figure(rows, columns, size, **options):
  """Create a figure with panels; `save` writes it.

  It does not use pyplot, which loads the selected backend and keeps all figures in memory.

  Args:
    rows, columns: of panels.
    size: (width, height) in inches.
    options: of `matplotlib.figure.Figure.subplots`.

  Returns:
    (matplotlib.figure.Figure, its axes as `subplots` returns them).
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  # The viewer of an SVG has the characters that Matplotlib's font lacks; in a PNG they are boxes.
  warnings.filterwarnings('ignore', r'Glyph \d+ ', UserWarning)
  panels = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(panels)
  return panels, panels.subplots(rows, columns, **options)


def save(figure, path):
  """Write a figure as PNG to a Path or Url."""
  content = io.BytesIO()
  figure.savefig(content, format='png', dpi=120)
  access.write(path, content.getvalue())
