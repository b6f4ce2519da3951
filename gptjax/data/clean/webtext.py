"""The WebText recipe (GPT-2, section 2.1), as far as it applies to text without its web page.

The paper names "de-duplication and some heuristic based cleaning", removes Wikipedia and intends to keep
English only. It gives no numbers; those here are choices of gptjax, with their origin in the comments. Each
filter can be disabled by its name. A removed document is counted for the first filter that removes it. The
two filters of duplicates run after all others, see `duplicates`.

    python -m gptjax.data.clean      lists the filters with examples of removed and kept text
"""

import collections
import re
import string
import unicodedata
from typing import NamedTuple

import numpy as np

from gptjax.data.clean import near_presets
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.storage.files import cache, local, paths

RECIPES = {'': (), 'webtext': (
  'blocked_domain', 'wikipedia', 'short', 'not_english', 'symbols', 'word_length', 'repetition',
  'menu', 'placeholder', 'exact_duplicate', 'near_duplicate')}
FILTERS = RECIPES['webtext']
DUPLICATES = ('exact_duplicate', 'near_duplicate')


class Recipe(NamedTuple):
  """The enabled filters and their data."""
  filters: tuple        # names, in the order of FILTERS
  domains: frozenset    # blocked domains
  titles: frozenset     # of Wikipedia pages, from `normalize_title`
  description: str      # all of this in one line, for the manifest
  near: near_presets.Near = near_presets.PRESETS['standard']  # for the filter near_duplicate

  def reason(self, verdict):
    """Return the reason under which documents with this verdict, a number from 1, are counted."""
    return f'webtext {FILTERS[verdict - 1]}'


class Document(NamedTuple):
  """A document as the filters see it."""
  text: str
  fields: dict     # `url`, `domain` and `title` where present (see `fields.origin_fields`)
  words: list      # separated by white space
  lines: list      # without blank lines
  characters: int  # of all words


def make_recipe(name, without, blocked_domains, wikipedia_titles, near=None):
  """Return the recipe called `name`.

  Args:
    name: 'webtext'; '': nothing is cleaned.
    without: names of filters to disable.
    blocked_domains: file with one domain per line, or the name of a site without its suffix (`google` stands
      for google.com and google.co.uk, with all subdomains); only the last word of a line is used; '': none.
      `domains.txt` in GPT-2's repository has this format, but it is not a blocklist: it counts the pages of
      each site in WebText.
    wikipedia_titles: file with one title per line; '': none.
    near: Near of `near_presets` for the filter near_duplicate; None: the standard preset.

  Raises:
    ValueError: unknown recipe or filter, an unreadable file, or `near` without the filter near_duplicate.
  """
  if name not in RECIPES:
    raise InputError(f'clean = {name!r} is not one of {sorted(RECIPES)}')
  if unknown := set(without) - set(RECIPES[name]):
    raise InputError(f'clean_without: {min(unknown)!r} is not a filter of {name!r}, which has '
                     f'{", ".join(RECIPES[name])}')
  filters = tuple(f for f in RECIPES[name] if f not in without)
  if near and 'near_duplicate' not in filters:
    raise InputError('--near and --near_... need the filter near_duplicate: give --clean=webtext too')
  near = near or near_presets.PRESETS['standard']
  domains = read_domains(blocked_domains)
  titles = frozenset(normalize_title(line) for line in read_lines(wikipedia_titles)) - {''}
  parts = [name, *(f'without {f}' for f in RECIPES[name] if f in without)]
  for label, names in (('blocked domains', domains), ('Wikipedia titles', titles)):
    if names:
      parts.append(f'{label} {tokenizer_files.digest(repr(sorted(names)).encode())[:16]}')
  if 'near_duplicate' in filters:
    parts.append(f'near {near_presets.describe(near)}')
  return Recipe(filters, domains, titles, ', '.join(parts), near)


def read_domains(path):
  """Return the frozenset of the domains in a file, see `make_recipe`; '': none."""
  return frozenset(line.split()[-1].lower().removeprefix('www.') for line in read_lines(path))


def read_lines(path):
  """Return the lines of a text file that are neither blank nor begin with #; '': none."""
  if not path:
    return []
  try:
    text = local.content(cache.local_file(paths.parsed(path))).decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    why = getattr(error, 'strerror', None) or error
    raise InputError(f'{path} cannot be read: {why}') from None
  return [line for line in text.splitlines() if line.strip() and not line.startswith('#')]


def find_filter(document, recipe):
  """Return the number, from 1, of the first filter that removes the document; 0 if none does."""
  for name in recipe.filters:
    if name not in DUPLICATES and FILTER_FUNCTIONS[name](document, recipe):
      return FILTERS.index(name) + 1
  return 0


def make_document(text, fields):
  """Return the Document of a text and the fields of its record."""
  words, lines = text.split(), [s for s in map(str.strip, text.split('\n')) if s]
  return Document(text, fields, words, lines, len(''.join(words)))


_SCHEME, _REST, _PORT = re.compile(r'[a-z][a-z0-9+.-]*://'), re.compile(r'[/?#]'), re.compile(r':\d*$')
MAX_DOMAIN_LENGTH = 253  # characters, by RFC 1035; longer names are invalid and slow to compare


def get_domain(fields):
  """Return the domain in the field `domain` or `url` of a record, without `www.`; '' if there is none."""
  domain = (fields.get('domain') or fields.get('url', '')).strip().lower()
  domain = domain[match.end():] if (match := _SCHEME.match(domain)) else domain
  domain = _REST.split(domain, maxsplit=1)[0].rpartition('@')[2]
  domain = _PORT.sub('', domain).removeprefix('www.')
  return domain if len(domain) <= MAX_DOMAIN_LENGTH else ''


# The first label of country suffixes with two labels: example.co.uk, example.com.au, example.ne.jp.
_SECOND_LEVEL = frozenset(['ac', 'co', 'com', 'edu', 'gov', 'mil', 'ne', 'net', 'or', 'org'])


def is_within(domain, domains):
  """Whether a domain, one of its parent domains, or the name of its site is in `domains`."""
  labels = domain.split('.')
  return (any('.'.join(labels[i:]) in domains for i in range(len(labels) - 1)) or domain in domains
          or _site(labels) in domains)


def _site(labels):
  """Return the label before the suffix of a domain: `google` of www.google.co.uk."""
  two = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
  return labels[-2 - two] if len(labels) > 1 else labels[-1]


_SITE = re.compile(r' [-\u2013\u2014|] Wikipedia\b.*', re.DOTALL)


def normalize_title(title):
  """Return a title in lower case, without heading marks and the name of the site, for comparison."""
  title = unicodedata.normalize('NFKC', title).replace('_', ' ').strip(' =\t\r\n')
  return _SITE.sub('', ' '.join(title.split())).strip().lower()


# The filters; `clean_examples.DESCRIPTIONS` describes them. Python loops over characters, words and phrases
# would take most of the time of `prepare`: filters compute bounds first, which decide nearly always. The
# tests have the plain rules.


def blocked_domain(document, recipe):
  domain = get_domain(document.fields)
  return bool(domain) and is_within(domain, recipe.domains)


def wikipedia(document, recipe):
  if domain := get_domain(document.fields):
    return is_within(domain, {'wikipedia.org'})
  if 'From Wikipedia, the free encyclopedia' in document.text[:2000]:
    return True
  title = document.fields.get('title') or (document.lines or [''])[0]
  return len(title) < 300 and normalize_title(title) in recipe.titles


def short(document, recipe):
  del recipe
  return len(document.words) < 96


# Frequent in English, and together rare in other languages with the same alphabet.
_COMMON = (
  'the of and to in that is was for it with as his he be by on not at had are but from have this '
  'you which or were her they their she would been there when who will what an we him has more if '
  'out so said them then than its your could into can these some do about my')
COMMON = frozenset(_COMMON.split())
_EDGES = '.,;:!?"\'()[]{}<>*_-\u2018\u2019\u201c\u201d'


class _CommonWords(dict):
  """{word: whether it is a common one without its punctuation}, computed where a word is looked up."""
  MAX_WORDS, MAX_LENGTH = 1 << 16, 20  # that are stored: up to 10 MB

  def __missing__(self, word):
    common = word.strip(_EDGES).lower() in COMMON
    if len(word) <= self.MAX_LENGTH:
      if len(self) >= self.MAX_WORDS:
        self.clear()
      self[word] = common
    return common


_common = _CommonWords()
_ASCII_LETTERS = string.ascii_letters.encode()


def _count_ascii(text):
  """Return (number of ASCII letters, number of characters that are not ASCII)."""
  data = text.encode('ascii', 'ignore')
  return len(data) - len(data.translate(None, _ASCII_LETTERS)), len(text) - len(data)


def not_english(document, recipe):
  del recipe
  words, common, at = document.words, 0, 0
  step = len(words) // 5 + 1  # English prose has enough of them in its first two fifths
  while common < 0.15 * len(words):
    if at >= len(words):
      return True
    common += sum(map(_common.__getitem__, words[at:at + step]))
    at += step
  letters, others = _count_ascii(document.text)
  if others <= 0.1 * max(1, letters + others):  # even if all others are letters
    return False
  foreign = sum(c.isalpha() for c in document.text if c > '\x7f')
  return foreign > 0.1 * max(1, letters + foreign)


def symbols(document, recipe):
  del recipe
  letters, others = _count_ascii(document.text)
  least = 0.7 * document.characters
  return letters < least and (letters + others < least or sum(map(str.isalpha, document.text)) < least)


def word_length(document, recipe):
  del recipe
  return not 3 <= document.characters / max(1, len(document.words)) <= 10


def repetition(document, recipe):
  del recipe
  if len(document.lines) - len(set(document.lines)) > 0.3 * len(document.lines):
    return True
  if not _may_repeat(document.words, 0.15 * document.characters):
    return False
  words = document.words
  phrases = collections.Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
  phrase, times = max(phrases.items(), key=lambda item: item[1], default=((), 0))
  return times > 2 and times * sum(map(len, phrase)) > 0.15 * document.characters


def _may_repeat(words, characters):
  """Whether one phrase of 4 words may occur 3 times and have more than so many characters in all.

  A phrase that occurs n times has a hash that occurs n times. The hashes differ between processes, but they
  decide only whether `repetition` counts the phrases.
  """
  n = len(words)
  if n < 6:
    return False
  hashes = np.fromiter(map(hash, words), np.int64, n).view(np.uint64)
  phrases = hashes[:-3]
  for i in (1, 2, 3):
    phrases = phrases * np.uint64(0x9E3779B97F4A7C15) + hashes[i:n - 3 + i]
  phrases.sort()
  if not (phrases[2:] == phrases[:-2]).any():
    return False
  ends = np.cumsum(np.fromiter(map(len, words), np.int64, n))
  longest = max(ends[3], (ends[4:] - ends[:-4]).max())
  times = max(3, int(characters / longest))  # the least number of a phrase that is as long as the longest
  return times <= len(phrases) and bool((phrases[times - 1:] == phrases[:len(phrases) - times + 1]).any())


def menu(document, recipe):
  del recipe
  ends = sum(line[-1] in '.!?:;,"\'\u201d\u2019)-' for line in document.lines)
  return len(document.lines) >= 6 and ends < 0.1 * len(document.lines)


_PLACEHOLDERS = re.compile(
  r'lorem ipsum|javascript (?:is|must be|has been) (?:disabled|enabled)|enable javascript'
  r'|access denied|404 (?:error|not found)|page (?:you requested|cannot be found|not found)'
  r'|your browser does not support', re.IGNORECASE)


# A text that the expression matches has one of these parts in lower case, or one of the four letters beyond
# ASCII that match an `i`, an `s` or a `k` if case is ignored. Parts are found much faster.
_PARTS, _ODD_LETTERS = ('lorem', 'javascript', 'denied', '404', 'page', 'browser'), '\u0130\u0131\u017f\u212a'


def placeholder(document, recipe):
  del recipe
  if len(document.words) >= 400:
    return False
  text, lower = document.text, document.text.lower()
  may_match = any(part in lower for part in _PARTS) or any(letter in text for letter in _ODD_LETTERS)
  return may_match and bool(_PLACEHOLDERS.search(text))


FILTER_FUNCTIONS = {f.__name__: f for f in (
  blocked_domain, wikipedia, short, not_english, symbols, word_length, repetition, menu,
  placeholder)}
