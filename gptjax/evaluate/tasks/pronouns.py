"""Position of the pronoun in sentences of the Definite Pronoun Resolution set, and what replaces it.

Each sentence is two clauses joined by a conjunction: the first has both referents, the second the pronoun.
The set gives the pronoun as a word, which may also occur in the first clause.
"""

import re

from gptjax.evaluate.tasks.cloze import WinogradSchema, substitute_pronoun

# Conjunctions that may join the clauses; the earliest one counts. "as" and "for" before an object or a
# possessive are prepositions ("paid her for her work"): they count only if there is no other conjunction.
_WORDS = ('because|although|though|while|whereas|until|unless|when|whenever|since|so|but|if|yet|and|or|after|'
          'before|once')
_CLAUSE = r'(?!\s+(?:me|him|her|us|them|my|your|his|its|our|their)\b)'
CONJUNCTIONS = [re.compile(words, re.IGNORECASE) for words in (
  rf'\b(?:{_WORDS})\b|[;:,]|\b(?:as|for)\b{_CLAUSE}', r'\b(?:as|for)\b', '')]
FIRST_WORD = re.compile(r'\s+(\w+)')
MAX_LENGTH = 253  # characters of a pronoun or a referent
POSSESSIVE = frozenset(('my', 'your', 'his', 'its', 'our', 'their', 'mine', 'yours', 'hers', 'ours',
                        'theirs'))
# Words that follow "her" as an object; before any other word it is possessive.
AFTER_OBJECT = frozenset((
  'a', 'an', 'the', 'this', 'that', 'these', 'those', 'my', 'your', 'his', 'her', 'its', 'our', 'their', 'to',
  'from', 'of', 'in', 'on', 'at', 'by', 'for', 'with', 'without', 'about', 'into', 'over', 'under', 'through',
  'against', 'and', 'or', 'but', 'because', 'so', 'since', 'although', 'though', 'while', 'until', 'unless',
  'when', 'if', 'after', 'before', 'as', 'than', 'who', 'which', 'what', 'where', 'how', 'why', 'not', 'too',
  'again', 'back', 'away', 'out', 'up', 'down', 'off', 'first', 'is', 'was', 'were', 'had', 'has', 'would',
  'could', 'should', 'did', 'will'))


def find_pronoun(sentence, pronoun, candidates):
  """Return (start, end) of the first occurrence of the pronoun after the conjunction, or None.

  Args:
    sentence: text.
    pronoun: a word of at most MAX_LENGTH characters; case is ignored if there is no exact occurrence.
    candidates: the two referents; the second clause begins after the first mention of both.
  """
  if not pronoun.strip():
    return None
  pattern = rf'\b{re.escape(pronoun)}\b'
  spans = [match.span() for match in re.finditer(pattern, sentence)] or [
    match.span() for match in re.finditer(pattern, sentence, re.IGNORECASE)]
  mentions = (re.search(rf'\b{re.escape(candidate)}\b', sentence, re.IGNORECASE) for candidate in candidates)
  mentioned_until = max((mention.end() for mention in mentions if mention), default=0)
  for conjunction in CONJUNCTIONS:
    clause = conjunction.search(sentence, mentioned_until)
    after = [span for span in spans if clause and span[0] >= clause.start()]
    if after:
      return after[0]
  return spans[0] if spans else None


def is_possessive(pronoun, after):
  """Whether a pronoun is possessive; the text `after` it decides for "her"."""
  if pronoun.lower() != 'her':
    return pronoun.lower() in POSSESSIVE
  word = FIRST_WORD.match(after)
  return bool(word) and word[1].lower() not in AFTER_OBJECT


def substitute_candidates(sentence, span, candidates):
  """Return (text before, [the form of each candidate that replaces the pronoun], text after)."""
  before, pronoun, after = sentence[:span[0]].rstrip(), sentence[slice(*span)], sentence[span[1]:].lstrip()
  kind = 'its' if is_possessive(pronoun, sentence[span[1]:]) else 'it'  # known to substitute_pronoun
  schema = WinogradSchema(before, kind, after, tuple(candidates), 0)
  substituted = [substitute_pronoun(schema, candidate) for candidate in candidates]
  return before + ' ' * bool(before), [word for _, word, _ in substituted], substituted[0][2]
