"""Markdown in which text of others is only text: no HTML, link, picture or formula comes out of it."""

import re

# A line between letters or digits, as in accuracy_partial, means nothing.
_SPECIAL = re.compile(r'[\\`*<>\[\]#|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])')


class Marked(str):
  """Markdown as it is meant, which `cell` leaves as it is."""


def escape(text):
  """Text whose characters mean nothing, but for those that only matter at the start of a line."""
  return _SPECIAL.sub(r'\\\g<0>', text)


def line(text):
  """`escape` text in one line: of a heading, a list or a cell."""
  return escape(' '.join(text.split()))


def bold(text):
  """The text as a strong cell."""
  return Marked(f'**{line(text)}**')


def cell(value):
  """A cell of a table: of anything, None is an empty one."""
  return value if isinstance(value, Marked) else '' if value is None else line(str(value))


def table(head, rows, align=()):
  """A table.

  Args:
    head: names of the columns.
    rows: lists of cells, see `cell`.
    align: '---' or '---:' of each column; (): all to the left.
  """
  lines = [map(cell, head), align or ['---'] * len(head), *(map(cell, row) for row in rows)]
  return '\n'.join('| ' + ' | '.join(one) + ' |' for one in lines)
