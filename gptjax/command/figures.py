"""Figures of Matplotlib, drawn by its Agg whatever backend the environment or a notebook has chosen."""

import io

from gptjax.files import atomic
from gptjax.text.printable import printable


def literal(text):
  """A label or title that is shown as it is: Matplotlib takes what is between two $ for a formula."""
  return printable(text, '\n').replace('$', r'\$')


def figure(rows, columns, size, **options):
  """A figure of panels; `save` writes it.

  Matplotlib's pyplot, which loads the chosen backend and keeps all figures, has no part in it.

  Args:
    rows, columns: of panels.
    size: (width, height) in inches.
    options: of `matplotlib.figure.Figure.subplots`.

  Returns:
    (matplotlib.figure.Figure, its axes as `subplots` gives them).
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  made = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(made)
  return made, made.subplots(rows, columns, **options)


def save(made, path):
  """Writes a figure as PNG."""
  content = io.BytesIO()
  made.savefig(content, format='png', dpi=120)
  atomic.write(path, content.getvalue())
