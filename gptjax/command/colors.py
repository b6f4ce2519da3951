"""Colours on terminals, by termcolor: headings of help, warnings, the marks of `gptjax doctor`.

Nothing is coloured in a file or pipe, with NO_COLOR (https://no-color.org) or with TERM=dumb.
`streams.write_colored` writes coloured texts.
"""

import os

# At import, because `startup.begin` sets NO_COLOR for the libraries.
ALLOWED = not os.environ.get('NO_COLOR') and os.environ.get('TERM') != 'dumb'


def enabled(stream):
  """Return whether a stream shows colours."""
  return ALLOWED and stream.isatty()


def colored(text, stream, *arguments, **options):
  """Return a text with colour codes, or unchanged if the stream does not show them.

  Args:
    text: str.
    stream: where it will be written.
    arguments, options: of `termcolor.colored`: the colour, and `attrs`.
  """
  if not enabled(stream):
    return text
  import termcolor
  return termcolor.colored(text, *arguments, force_color=True, **options)
