"""A report before it is HTML or Markdown: sections of prose, tables, figures and text as it is."""

from typing import NamedTuple


class Prose(NamedTuple):
  """A paragraph."""
  text: str


class Table(NamedTuple):
  """A table; in the first column is what a row is about.

  head: names of the columns.
  rows: lists of str, Strong or None; None is an empty cell.
  caption: a sentence or two.
  prose: whether cells are text, set to the left, and not numbers.
  """
  head: list
  rows: list
  caption: str
  prose: bool = False


class Strong(NamedTuple):
  """A cell that stands out."""
  text: str


class Figure(NamedTuple):
  """A drawing: `svg` as `plots` makes it, which follows the colours of the page it is in."""
  name: str
  svg: str
  caption: str


class Verbatim(NamedTuple):
  """Text as it is, under a title that is opened to see it where `folded`."""
  title: str
  text: str
  folded: bool = False


class Section(NamedTuple):
  """A part with a heading."""
  title: str
  blocks: list
