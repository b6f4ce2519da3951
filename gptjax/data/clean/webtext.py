"""The WebText recipe (GPT-2, section 2.1), as far as it can be done on text in hand.

The paper names "de-duplication and some heuristic based cleaning", takes Wikipedia out and means to
keep English only. It gives no numbers; the ones here are ours, with their origin beside
them. Each filter has a name, can be switched off by it, and is counted; the first one that removes
a document counts it. The two kinds of duplicates are found in `duplicates`, after all others.

    python -m gptjax.data.clean      lists the filters, each with what it removes and keeps
"""

import collections
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError

RECIPES = {'': (), 'webtext': (
  'blocked_domain', 'wikipedia', 'short', 'not_english', 'symbols', 'word_length', 'repetition',
  'menu', 'placeholder', 'exact_duplicate', 'near_duplicate')}
FILTERS = RECIPES['webtext']
DUPLICATES = ('exact_duplicate', 'near_duplicate')


class Recipe(NamedTuple):
  """Which filters are on, and what they need."""
  filters: tuple        # names, in the order of FILTERS
  domains: frozenset    # blocked ones
  titles: frozenset     # of Wikipedia's pages, as `plain_title` gives them
  description: str      # all of this in a line, for the manifest

  def reason(self, verdict):
    """The name under which documents with this verdict, a number from 1, are counted."""
    return f'webtext {FILTERS[verdict - 1]}'


class Document(NamedTuple):
  """What the filters look at."""
  text: str
  fields: dict     # `url`, `domain` and `title`, those that there are (see `fields.origin`)
  words: list      # between white space
  lines: list      # without blank ones


def make_recipe(name, without, blocked_domains, wikipedia_titles):
  """The recipe called `name`.

  Args:
    name: 'webtext'; '': nothing is cleaned.
    without: names of filters to leave out.
    blocked_domains: file with a domain a line, or a name without the part that domains end in (`google`: of
      google.com and google.co.uk, with all their subdomains); the last word of the line counts; '': none.
      `domains.txt` in GPT-2's repository can be read, but it is no list of what to block: it counts the pages
      by site that are in WebText.
    wikipedia_titles: file with a title a line; '': none.

  Raises:
    ValueError: no such recipe, filter or file.
  """
  if name not in RECIPES:
    raise InputError(f'clean = {name!r} is not one of {sorted(RECIPES)}')
  if strange := set(without) - set(RECIPES[name]):
    raise InputError(f'clean_without: {min(strange)!r} is not a filter of {name!r}, those are '
                     f'{", ".join(RECIPES[name])}')
  filters = tuple(f for f in RECIPES[name] if f not in without)
  domains = frozenset(line.split()[-1].lower().removeprefix('www.')
                      for line in _lines(blocked_domains))
  titles = frozenset(normalize_title(line) for line in _lines(wikipedia_titles)) - {''}
  parts = [name, *(f'without {f}' for f in RECIPES[name] if f in without)]
  for what, found in (('blocked domains', domains), ('Wikipedia titles', titles)):
    if found:
      parts.append(f'{what} {tokenizer_files.digest(repr(sorted(found)).encode())[:16]}')
  return Recipe(filters, domains, titles, ', '.join(parts))


def _lines(path):
  if not path:
    return []
  try:
    text = Path(path).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path} cannot be read: {error}') from None
  return [line for line in text.splitlines() if line.strip() and not line.startswith('#')]


def find_filter(document, recipe):
  """The number of the first filter that removes the document, from 1; 0 if none does."""
  for name in recipe.filters:
    if name not in DUPLICATES and FILTER_FUNCTIONS[name](document, recipe):
      return FILTERS.index(name) + 1
  return 0


def make_document(text, fields):
  """What the filters look at, of a text."""
  return Document(text, fields, text.split(), [s for s in map(str.strip, text.split('\n')) if s])


_SCHEME, _REST, _PORT = re.compile(r'[a-z][a-z0-9+.-]*://'), re.compile(r'[/?#]'), re.compile(r':\d*$')
MAX_DOMAIN_LENGTH = 253  # characters, by RFC 1035; what is longer is none, and would take long to compare


def get_domain(fields):
  """The domain that a record names, in `domain` or `url`, without `www.`; '' if it names none."""
  found = (fields.get('domain') or fields.get('url', '')).strip().lower()
  found = found[match.end():] if (match := _SCHEME.match(found)) else found
  found = _REST.split(found, maxsplit=1)[0].rpartition('@')[2]
  found = _PORT.sub('', found).removeprefix('www.')
  return found if len(found) <= MAX_DOMAIN_LENGTH else ''


# The first of two labels that many countries' domains end in: example.co.uk, example.com.au, example.ne.jp.
_SECOND_LEVEL = frozenset(['ac', 'co', 'com', 'edu', 'gov', 'mil', 'ne', 'net', 'or', 'org'])


def _within(domain, domains):
  """Whether a domain, one that it is a part of, or the name of its site is among `domains`."""
  labels = domain.split('.')
  return (any('.'.join(labels[i:]) in domains for i in range(len(labels) - 1)) or domain in domains
          or _site(labels) in domains)


def _site(labels):
  """The label before what a domain ends in: `google` of www.google.co.uk."""
  two = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
  return labels[-2 - two] if len(labels) > 1 else labels[-1]


_SITE = re.compile(r' [-\u2013\u2014|] Wikipedia\b.*', re.DOTALL)


def normalize_title(title):
  """A title as it is compared: of any case, without marks of headings and the site's name."""
  title = unicodedata.normalize('NFKC', title).replace('_', ' ').strip(' =\t\r\n')
  return _SITE.sub('', ' '.join(title.split())).strip().lower()


# The filters; `clean_examples.RULES` says what each of them removes.


def blocked_domain(document, recipe):
  domain = get_domain(document.fields)
  return bool(domain) and _within(domain, recipe.domains)


def wikipedia(document, recipe):
  if domain := get_domain(document.fields):
    return _within(domain, {'wikipedia.org'})
  if 'From Wikipedia, the free encyclopedia' in document.text[:2000]:
    return True
  title = document.fields.get('title') or (document.lines or [''])[0]
  return len(title) < 300 and normalize_title(title) in recipe.titles


def short(document, recipe):
  del recipe
  return len(document.words) < 96


# Frequent in English, and together rare in the languages that share an alphabet with it.
_COMMON = (
  'the of and to in that is was for it with as his he be by on not at had are but from have this '
  'you which or were her they their she would been there when who will what an we him has more if '
  'out so said them then than its your could into can these some do about my')
COMMON = frozenset(_COMMON.split())
_EDGES = '.,;:!?"\'()[]{}<>*_-\u2018\u2019\u201c\u201d'


def not_english(document, recipe):
  del recipe
  words = [word.strip(_EDGES).lower() for word in document.words]
  if sum(word in COMMON for word in words) < 0.15 * len(words):
    return True
  foreign = sum(c.isalpha() for c in document.text if c > '\x7f')
  return foreign > 0.1 * max(1, sum(map(str.isalpha, document.text)))


def symbols(document, recipe):
  del recipe
  letters = sum(map(str.isalpha, document.text))
  return letters < 0.7 * sum(map(len, document.words))


def word_length(document, recipe):
  del recipe
  return not 3 <= sum(map(len, document.words)) / max(1, len(document.words)) <= 10


def repetition(document, recipe):
  del recipe
  if len(document.lines) - len(set(document.lines)) > 0.3 * len(document.lines):
    return True
  words = document.words
  phrases = collections.Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
  phrase, times = max(phrases.items(), key=lambda item: item[1], default=((), 0))
  return times > 2 and times * sum(map(len, phrase)) > 0.15 * sum(map(len, words))


def menu(document, recipe):
  del recipe
  ends = sum(line[-1] in '.!?:;,"\'\u201d\u2019)-' for line in document.lines)
  return len(document.lines) >= 6 and ends < 0.1 * len(document.lines)


_PLACEHOLDERS = re.compile(
  r'lorem ipsum|javascript (?:is|must be|has been) (?:disabled|enabled)|enable javascript'
  r'|access denied|404 (?:error|not found)|page (?:you requested|cannot be found|not found)'
  r'|your browser does not support', re.IGNORECASE)


def placeholder(document, recipe):
  del recipe
  return len(document.words) < 400 and bool(_PLACEHOLDERS.search(document.text))


FILTER_FUNCTIONS = {f.__name__: f for f in (
  blocked_domain, wikipedia, short, not_english, symbols, word_length, repetition, menu,
  placeholder)}






