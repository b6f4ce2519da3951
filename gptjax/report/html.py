"""A report as one HTML file that needs no other: no script, no font, no picture from elsewhere."""

import html
import itertools

from gptjax.report import plots
from gptjax.report.document import Figure, Prose, SideBySide, Strong, Table, Verbatim

# Should anything get past the escaping: no script runs, and nothing is loaded from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = '''
:root { color-scheme: light dark; --page: #ffffff; --rule: #d5d8dd; --band: #f4f5f7; LIGHT }
@media (prefers-color-scheme: dark) { :root { --page: #15171a; --rule: #3a3f47; --band: #1e2126; DARK } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 58rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 Charter, "Bitstream Charter", "Source Serif 4", Georgia, serif; }
h1 { font-size: 1.7rem; line-height: 1.2; font-weight: 600; margin: 0 0 1.2rem; }
h2 { font-size: 1.2rem; font-weight: 600; margin: 2.8rem 0 0.8rem; padding-top: 0.6rem;
  border-top: 1px solid var(--rule); }
h2 .number { margin-right: 0.7em; }
nav ol { columns: 2; margin: 0; padding-left: 1.4rem; font-size: 0.92rem; }
a { color: var(--series-1); text-decoration: none; } a:hover { text-decoration: underline; }
figure { margin: 1.6rem 0; }
figcaption { font-size: 0.88rem; margin-bottom: 0.5rem; } figcaption b { margin-right: 0.4em; }
figure.drawing figcaption { margin: 0.4rem 0 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font: 0.8rem/1.35 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; border-top: 1.5px solid var(--ink);
  border-bottom: 1.5px solid var(--ink); }
th { font-weight: 600; text-align: right; vertical-align: bottom; border-bottom: 0.8px solid var(--ink); }
th, td { padding: 0.28rem 0.6rem; } td { text-align: right; vertical-align: top; }
th:first-child, td:first-child, .prose th, .prose td { text-align: left; }
td:first-child { min-width: 9rem; }
tbody tr:nth-child(even) { background: var(--band); }
td.absent { color: var(--faint); white-space: nowrap; } td strong { color: var(--series-1); }
svg { max-width: 100%; height: auto; display: block; }
pre { font: 0.8rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--band); border-left: 3px solid var(--rule);
  padding: 0.7rem 0.9rem; margin: 0.4rem 0 1.2rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 0 1.2rem; }
.title, summary { font: 600 0.85rem/1.4 system-ui, sans-serif; margin: 1rem 0 0; }
summary { cursor: pointer; }
p { margin: 0.7rem 0; font-size: 0.94rem; }
@media print { body { max-width: none; padding: 0; } details { display: block; } }
'''


def page(title, sections):
  """The text of the file.

  Args:
    title: of the report.
    sections: list of document.Section.
  """
  values = lambda colours: ' '.join(f'{name}: {colour};' for name, colour in colours.items())
  style = STYLE.replace('LIGHT', values(plots.LIGHT)).replace('DARK', values(plots.DARK))
  number = {Table: itertools.count(1), Figure: itertools.count(1)}
  links = ''.join(f'<li><a href="#s{i}">{html.escape(section.title)}</a></li>'
                  for i, section in enumerate(sections, 1))
  body = ''.join(f'<section id="s{i}"><h2><span class="number">{i}</span>{html.escape(section.title)}</h2>\n'
                 + ''.join(_block(block, number) for block in section.blocks) + '</section>\n'
                 for i, section in enumerate(sections, 1))
  return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
          f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
          '<meta name="viewport" content="width=device-width, initial-scale=1">'
          f'<title>{html.escape(title)}</title><style>{style}</style></head>\n'
          f'<body>\n<h1>{html.escape(title)}</h1>\n<nav><ol>{links}</ol></nav>\n{body}</body></html>\n')


def _block(block, number):
  if isinstance(block, Prose):
    return f'<p>{html.escape(block.text)}</p>\n'
  if isinstance(block, SideBySide):
    columns = (_block(Verbatim(*column), number) for column in block.columns)
    return '<div class="columns">' + ''.join(f'<div>{column}</div>' for column in columns) + '</div>\n'
  if isinstance(block, Verbatim):
    text = f'<pre>{html.escape(block.text)}</pre>\n'
    if block.folded:
      return f'<details><summary>{html.escape(block.title)}</summary>{text}</details>\n'
    return f'<p class="title">{html.escape(block.title)}</p>{text}'
  caption = f'<b>{type(block).__name__} {next(number[type(block)])}.</b>{html.escape(block.caption)}'
  if isinstance(block, Figure):
    named = block.svg.replace('<svg', f'<svg role="img" aria-label="{html.escape(block.caption)}"', 1)
    return (f'<figure class="drawing"><div class="wide">{named}</div>'
            f'<figcaption>{caption}</figcaption></figure>\n')
  head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in block.head)
  rows = ''.join('<tr>' + ''.join(map(_cell, row)) + '</tr>\n' for row in block.rows)
  kind = ' class="prose"' if block.prose else ''
  return (f'<figure><figcaption>{caption}</figcaption><div class="wide"><table{kind}>'
          f'<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div></figure>\n')


def _cell(value):
  if value is None:
    return '<td></td>'
  if isinstance(value, Strong):
    return f'<td><strong>{html.escape(value.text)}</strong></td>'
  return f'<td{" class=absent" if value == "not run" else ""}>{html.escape(value)}</td>'
