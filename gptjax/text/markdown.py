"""Markdown with untrusted text, which cannot create HTML, links, images or formulas."""

import re

# An underscore between letters or digits, as in accuracy_partial, needs no escape.
_SPECIAL = re.compile(r'[\\`*<>\[\]#|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])')


class Marked(str):
  """Markdown markup, which `cell` does not escape."""


def escape(text):
  """Escape special characters, except those that are special only at the start of a line."""
  return _SPECIAL.sub(r'\\\g<0>', text)


def line(text):
  """Escape text and join it to one line, for a heading, a list or a cell."""
  return escape(' '.join(text.split()))


def bold(text):
  """Return a bold cell."""
  return Marked(f'**{line(text)}**')


def cell(value):
  """Return a cell of any value; None is empty."""
  return value if isinstance(value, Marked) else '' if value is None else line(str(value))


def table(head, rows, align=()):
  """Return a table.

  Args:
    head: names of the columns.
    rows: lists of cells, see `cell`.
    align: '---' or '---:' of each column; (): all left-aligned.
  """
  lines = [map(cell, head), align or ['---'] * len(head), *(map(cell, row) for row in rows)]
  return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)
