"""Text from elsewhere as it may be shown: nothing in it acts on a terminal or hides what it says."""

import re

# C0 and C1 controls (the escape character among them), DEL, line and paragraph separators, and the controls
# of text direction, which can make a terminal show the characters in another order.
ACTING = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')


def printable(text):
  """The text on one line, with each character that acts on a terminal as its escape, `\\x1b` for example."""
  return ACTING.sub(lambda found: ascii(found[0])[1:-1], str(text))
