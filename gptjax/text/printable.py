"""Escapes control and bidirectional characters, which a terminal would interpret.

Untrusted names, texts and messages can contain escape sequences, which set the title of a window, write to
its clipboard or draw a false prompt, and directional marks, which reorder a line.
"""

import re

# Controls (C0, DEL, C1), directional marks, line and paragraph separators, unpaired surrogates.
_UNSAFE = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def printable(text, keep=''):
  r"""Replace each control or bidirectional character by its Python escape, '\x1b' or '\u202e'.

  Each character is handled independently, so that text can be passed in pieces.

  Args:
    text: str.
    keep: characters to leave unchanged, '\n\t' for text of several lines.
  """
  return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], str(text))
