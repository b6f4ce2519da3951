"""Text that a terminal shows as it is: characters that would act on the terminal are escaped.

Names, texts and messages of others can hold escape sequences, which set the title of a window, write its
clipboard or draw a false prompt, and marks of direction, by which a line reads other than it is.
"""

import re

# Controls (C0, DEL, C1), marks of direction, separators of lines and paragraphs, halves of surrogate pairs.
_UNSAFE = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def printable(text, keep=''):
  r"""The text with each character that acts on a terminal as an escape of Python: '\x1b', '\u202e'.

  It works on each character alone, so that a text may come in any pieces.

  Args:
    text: str.
    keep: characters to leave as they are, '\n\t' for text of several lines.
  """
  return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], str(text))
