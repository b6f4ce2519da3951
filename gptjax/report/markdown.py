"""A report as Markdown, whose figures are SVG files beside it."""

import itertools

from gptjax.report.document import Figure, Prose, Strong, Table, Verbatim


def page(title, sections, folder):
  """The text of the file.

  Args:
    title: of the report.
    sections: list of document.Section.
    folder: where NAME.svg of each figure lies.
  """
  number = {Table: itertools.count(1), Figure: itertools.count(1)}
  parts = [f'# {title}']
  for i, section in enumerate(sections, 1):
    parts.append(f'## {i} {section.title}')
    parts += [_block(block, number, folder) for block in section.blocks]
  return '\n\n'.join(parts) + '\n'


def _block(block, number, folder):
  if isinstance(block, Prose):
    return _escaped(block.text)
  if isinstance(block, Verbatim):
    fence = '`' * max(3, 1 + _longest_run(block.text, '`'))
    text = f'{fence}text\n{block.text}\n{fence}'
    if block.folded:
      return f'<details><summary>{_escaped(block.title)}</summary>\n\n{text}\n\n</details>'
    return f'**{_escaped(block.title)}**\n\n{text}'
  caption = f'**{type(block).__name__} {next(number[type(block)])}.** {_escaped(block.caption)}'.rstrip()
  if isinstance(block, Figure):
    return f'![{_escaped(block.caption)}]({folder}/{block.name}.svg)\n\n{caption}'
  side = '---' if block.prose else '---:'
  rows = [block.head, ['---', *[side] * (len(block.head) - 1)], *block.rows]
  return caption + '\n\n' + '\n'.join('| ' + ' | '.join(map(_cell, row)) + ' |' for row in rows)


def _longest_run(text, character):
  return max((len(list(run)) for own, run in itertools.groupby(text) if own == character), default=0)


def _cell(value):
  if isinstance(value, Strong):
    return f'**{_cell(value.text)}**'
  return '' if value is None else _escaped(value).replace('|', '\\|').replace('\n', ' ')


def _escaped(text):
  """Text whose characters mean nothing to Markdown, but for those that only matter at the start of a line."""
  return ''.join(f'\\{c}' if c in '\\`*_<>[]#' else c for c in text)
