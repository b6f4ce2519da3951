"""The content of a report, independent of its format: sections of prose, tables, figures and raw text."""

from typing import NamedTuple


class Prose(NamedTuple):
  """A paragraph."""
  text: str


class Table(NamedTuple):
  """A table, whose first column names the row.

  head: names of the columns.
  rows: lists of str, Strong or None; None is an empty cell.
  caption: one or two sentences.
  prose: whether cells are left-aligned text, not numbers.
  """
  head: list
  rows: list
  caption: str
  prose: bool = False


class Strong(NamedTuple):
  """An emphasized cell."""
  text: str


class Figure(NamedTuple):
  """A figure: `svg` from `plots`, which uses the colours of the page."""
  name: str
  svg: str
  caption: str


class Verbatim(NamedTuple):
  """Verbatim text with a title; with `folded`, shown only after a click."""
  title: str
  text: str
  folded: bool = False


class SideBySide(NamedTuple):
  """Verbatim texts in columns: `columns` are (title, text)."""
  columns: list


class Section(NamedTuple):
  """A section with a heading."""
  title: str
  blocks: list
