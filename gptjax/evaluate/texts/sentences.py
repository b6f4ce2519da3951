"""Splitting text into sentences; the papers do not say how they did it."""

import re

# Full stop, question or exclamation mark and closing marks, before white space and no lower-case letter.
_END = re.compile(r'(?<=[.!?])["\u201d\u2019\')\]]*(?=\s+[^\sa-z\u00df-\u00ff])')
_ABBREVIATION = re.compile(
  r'\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Gen|Lt|Col|Sgt|Rev|Gov|Sen|Rep|vs|No|Mme)\.$')
_LONGEST = len('Prof.')


def sentences(text):
  """Return [str], the sentences of a text; line breaks also end a sentence."""
  spans = []
  for line in text.split('\n'):
    begin = 0
    for match in _END.finditer(line):
      stop = match.start()
      if not _ABBREVIATION.search(line, max(begin, stop - _LONGEST), stop):
        spans.append(line[begin:match.end()])
        begin = match.end()
    spans.append(line[begin:])
  return [sentence.strip() for sentence in spans if sentence.strip()]
