"""A report as Markdown, whose figures are separate SVG files."""

import html
import itertools

from gptjax.report.document import Figure, Prose, SideBySide, Strong, Table, Verbatim
from gptjax.text.markdown import bold, escape, line, table


def page(title, sections, folder):
  """The text of the file.

  Args:
    title: of the report.
    sections: list of document.Section.
    folder: with NAME.svg of each figure.
  """
  number = {Table: itertools.count(1), Figure: itertools.count(1)}
  parts = [f'# {line(title)}']
  for i, section in enumerate(sections, 1):
    parts.append(f'## {i} {line(section.title)}')
    parts += [_block(block, number, folder) for block in section.blocks]
  return '\n\n'.join(parts) + '\n'


def _block(block, number, folder):
  if isinstance(block, Prose):
    return escape(block.text)
  if isinstance(block, SideBySide):  # Markdown has no columns
    return '\n\n'.join(_block(Verbatim(*column), number, folder) for column in block.columns)
  if isinstance(block, Verbatim):
    fence = '`' * max(3, 1 + _longest_run(block.text, '`'))
    text = f'{fence}text\n{block.text}\n{fence}'
    if block.folded:
      title = html.escape(' '.join(block.title.split()))  # a blank line would end the HTML
      return f'<details><summary>{title}</summary>\n\n{text}\n\n</details>'
    return f'{bold(block.title)}\n\n{text}'
  caption = f'**{type(block).__name__} {next(number[type(block)])}.** {line(block.caption)}'.rstrip()
  if isinstance(block, Figure):
    return f'![{line(block.caption)}]({folder}/{block.name}.svg)\n\n{caption}'
  return f'{caption}\n\n{table_of(block)}'


def table_of(block):
  """The text of a document.Table, without its caption."""
  side = '---' if block.prose else '---:'
  rows = [[bold(value.text) if isinstance(value, Strong) else value for value in row] for row in block.rows]
  return table(block.head, rows, ['---', *[side] * (len(block.head) - 1)])


def _longest_run(text, character):
  return max((len(list(run)) for own, run in itertools.groupby(text) if own == character), default=0)
