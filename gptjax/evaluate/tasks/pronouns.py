"""Which pronoun a sentence of the Definite Pronoun Resolution set means, and what takes its place.

Each sentence is two clauses that a conjunction joins: the first names both referents, the second has the
pronoun. The set gives the pronoun as a word, which may occur in the first clause, too.
"""

import re

from gptjax.evaluate.tasks.cloze import WinogradSchema, substitute_pronoun

# What may join the clauses; the earliest does. "as" and "for" before an object or a possessive are
# prepositions ("paid her for her work"): they count where nothing else is there.
_WORDS = ('because|although|though|while|whereas|until|unless|when|whenever|since|so|but|if|yet|and|or|after|'
          'before|once')
_CLAUSE = r'(?!\s+(?:me|him|her|us|them|my|your|his|its|our|their)\b)'
CONJUNCTIONS = [re.compile(words, re.IGNORECASE) for words in (
  rf'\b(?:{_WORDS})\b|[;:,]|\b(?:as|for)\b{_CLAUSE}', r'\b(?:as|for)\b', '')]
FIRST_WORD = re.compile(r'\s+(\w+)')
MAX_LENGTH = 253  # characters of a pronoun, or a referent, which are looked for in the sentence
POSSESSIVE = frozenset(('my', 'your', 'his', 'its', 'our', 'their', 'mine', 'yours', 'hers', 'ours',
                        'theirs'))
# What follows "her" where it is an object; any other word is what is hers.
AFTER_OBJECT = frozenset((
  'a', 'an', 'the', 'this', 'that', 'these', 'those', 'my', 'your', 'his', 'her', 'its', 'our', 'their', 'to',
  'from', 'of', 'in', 'on', 'at', 'by', 'for', 'with', 'without', 'about', 'into', 'over', 'under', 'through',
  'against', 'and', 'or', 'but', 'because', 'so', 'since', 'although', 'though', 'while', 'until', 'unless',
  'when', 'if', 'after', 'before', 'as', 'than', 'who', 'which', 'what', 'where', 'how', 'why', 'not', 'too',
  'again', 'back', 'away', 'out', 'up', 'down', 'off', 'first', 'is', 'was', 'were', 'had', 'has', 'would',
  'could', 'should', 'did', 'will'))


def find_pronoun(sentence, pronoun, candidates):
  """(start, end) of the pronoun that is meant, the first after the conjunction; None: it is not there.

  Args:
    sentence: text.
    pronoun: a word of at most LONGEST characters; with other capitals only if it is nowhere as written.
    candidates: the two referents, after the first mention of which that clause begins.
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
  """Whether a pronoun says whose something is; `after`: the text after it, which decides of "her"."""
  if pronoun.lower() != 'her':
    return pronoun.lower() in POSSESSIVE
  word = FIRST_WORD.match(after)
  return bool(word) and word[1].lower() not in AFTER_OBJECT


def substitute_candidates(sentence, span, candidates):
  """(text before, [each candidate as it must be written in the pronoun's place], text after)."""
  before, pronoun, after = sentence[:span[0]].rstrip(), sentence[slice(*span)], sentence[span[1]:].lstrip()
  kind = 'its' if is_possessive(pronoun, sentence[span[1]:]) else 'it'  # of which `substituted` knows
  schema = WinogradSchema(before, kind, after, tuple(candidates), 0)
  substituted = [substitute_pronoun(schema, candidate) for candidate in candidates]
  return before + ' ' * bool(before), [word for _, word, _ in substituted], substituted[0][2]
