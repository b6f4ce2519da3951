"""Google-style docstrings as this project writes them, for autodoc.

Before napoleon reads a docstring:
  - the text of `Returns:` is prose, so that no part before a colon is taken for a type;
  - the fields of a NamedTuple, "name: meaning" lines after the first paragraph, become `Attributes:`.

Flax's modules have a metaclass that hides their arguments; the signature is that of `__init__`.
"""

import inspect
import re

SECTION = re.compile(r'^(Args|Returns|Raises|Yields|Attributes):$')


def _section_end(lines, start):
  """The index after the indented block that follows a section's heading."""
  end = start + 1
  while end < len(lines) and (not lines[end].strip() or lines[end].startswith(' ')):
    end += 1
  return end


def returns_as_prose(lines):
  """Replace `Returns:` and its block by a field list."""
  for start, line in enumerate(lines):
    if line.strip() == 'Returns:' and not line.startswith(' '):
      end = _section_end(lines, start)
      block = [text.strip() for text in lines[start + 1:end] if text.strip()]
      lines[start:end] = [f':returns: {block[0]}', *(f'  {text}' for text in block[1:]), '']
      return


def fields_as_attributes(lines, names):
  """Put the lines that describe the fields of a NamedTuple under `Attributes:`."""
  first = next((i for i, line in enumerate(lines) if re.match(rf'({"|".join(names)})\b[^:]*: ', line)), None)
  if first is None or any(SECTION.match(line) for line in lines):
    return
  entries = []
  for line in lines[first:]:
    several = re.match(r'(\w+(?:, \w+)+)(: .*)', line)  # "low, high: meaning" is one line for each
    for text in [f'{name}{several[2]}' for name in several[1].split(', ')] if several else [line]:
      entries.append(f'  {text}' if text else '')
  lines[first:] = ['Attributes:', *entries]


def _process(app, what, name, obj, options, lines):
  if what == 'class' and getattr(obj, '_fields', None):
    fields_as_attributes(lines, obj._fields)
  returns_as_prose(lines)


def _signature(app, what, name, obj, options, signature, returned):
  if what == 'class' and signature == '(*args, **kwargs)':
    parameters = list(inspect.signature(obj.__init__).parameters.values())
    return str(inspect.Signature(parameters[1:])), returned
  return None


def setup(app):
  app.connect('autodoc-process-signature', _signature)
  app.connect('autodoc-process-docstring', _process, priority=100)  # before napoleon
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
