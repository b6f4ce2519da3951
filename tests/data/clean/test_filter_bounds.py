"""Filters that decide by bounds give the verdicts of their plain rules, which are here."""

import collections
import gzip
import json
import random

import hypothesis
import pytest
from conftest import SHARED
from hypothesis import strategies as st

from gptjax.data.clean import clean_examples, webtext

RECIPE = webtext.make_recipe('webtext', (), '', '')


def plain_not_english(text):
  words = [word.strip(webtext._EDGES).lower() for word in text.split()]
  if sum(word in webtext.COMMON for word in words) < 0.15 * len(words):
    return True
  foreign = sum(c.isalpha() for c in text if c > '\x7f')
  return foreign > 0.1 * max(1, sum(map(str.isalpha, text)))


def plain_symbols(text):
  return sum(map(str.isalpha, text)) < 0.7 * sum(map(len, text.split()))


def plain_word_length(text):
  words = text.split()
  return not 3 <= sum(map(len, words)) / max(1, len(words)) <= 10


def plain_repetition(text):
  lines = [line.strip() for line in text.split('\n') if line.strip()]
  if len(lines) - len(set(lines)) > 0.3 * len(lines):
    return True
  words = text.split()
  phrases = collections.Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
  phrase, times = max(phrases.items(), key=lambda item: item[1], default=((), 0))
  return times > 2 and times * sum(map(len, phrase)) > 0.15 * sum(map(len, words))


def plain_placeholder(text):
  return len(text.split()) < 400 and bool(webtext._PLACEHOLDERS.search(text))


PLAIN = {'not_english': plain_not_english, 'symbols': plain_symbols, 'word_length': plain_word_length,
         'repetition': plain_repetition, 'placeholder': plain_placeholder}


def check(text):
  """Compare all filters with their rules; return the names of those that remove the text."""
  document = webtext.make_document(text, {})
  removing = set()
  for name, plain in PLAIN.items():
    expected = plain(text)
    assert webtext.FILTER_FUNCTIONS[name](document, RECIPE) == expected, (name, text[:500])
    removing |= {name} if expected else set()
  return removing


# Common words and others; letters of other scripts and what is none; white space and what only looks like it.
PIECES = [
  'the', 'The,', '"of"', '((and))', 'IN', 'wa\u017f', 'ma\u212ae', 'river', 'a', 'x' * 30,
  'é', 'İ', 'ß', 'Σ', 'ſ', '漢', '\u2019', '\u201cthe\u201d', '\U0001f600', '\U0001d400', '\u0301', '\ud800',
  '\x00', '\x85', '\u200b', '\xa0', '\u3000', '\u2028', '\ufeff', '\xaa', '²', '١', '1', '+', '...',
  'lorem ipsum', 'JavaScript is', 'disabled', 'java\u017fcr\u0130pt mu\u017ft be', 'enabled',
  'Access den\u0131ed', '404 error', 'brow\u017fer does not \u017fupport', 'Your',
  'page not found', 'PAGE YOU REQUESTED']
SPACES = [' ', ' ', ' ', '', '\n', '\n\n', '\t', '\r\n', '\x1c']


@st.composite
def texts(draw):
  """Parts of text, each repeated, so that shares are at the limits of the filters and phrases repeat."""
  parts = draw(st.lists(st.tuples(
    st.lists(st.tuples(st.sampled_from(PIECES) | st.text(max_size=3), st.sampled_from(SPACES)), min_size=1,
             max_size=6), st.integers(1, 12)), max_size=6))
  return ''.join(''.join(a + b for a, b in part) * times for part, times in parts)


@pytest.mark.ci
@hypothesis.given(texts())
@hypothesis.settings(max_examples=800, deadline=None)
def test_dirty_text(text):
  check(text)


def test_texts_at_the_limit_of_each_filter():
  """Shares from under to over each limit, in steps of one character or word."""
  for filters, make in {
      'not_english': lambda i: 'the ' * i + 'river ' * (200 - i),
      'not_english ': lambda i: 'the ' * 100 + 'é' * i,
      'not_english  ': lambda i: 'the ' * 100 + '\u2019é' * i,
      'symbols': lambda i: 'abc ' * 100 + '1' * i,
      'symbols ': lambda i: 'abc ' * 50 + 'é ' * 50 + '\u2019' * i,
      'word_length': lambda i: 'ab ' * 200 + 'abcd ' * i,
      'repetition': lambda i: ' '.join(map(str, range(1000, 1200))) + ' one of many phrases' * i,
      'repetition   ': lambda i: 'a ' * i,
      'repetition ': lambda i: ' '.join(map(str, range(1000, 1000 + i))) + ' one of many phrases' * 3,
      'repetition  ': lambda i: f'{"x" * i} ' + ' '.join('abcdefghijklmnop') + ' b c d e f' * 3,
      }.items():
    verdicts = [filters.strip() in check(make(i)) for i in range(1, 260)]
    assert len(set(verdicts)) == 2, filters


def test_the_first_of_phrases_that_are_equally_frequent_counts():
  """A longer phrase that is as frequent does not, although its length is in the bound."""
  short, long, rest = 'a b c d ', 'longer words make phrases ', ' '.join(map(str, range(1000, 1060)))
  assert 'repetition' not in check(short * 3 + rest + f' {long}5 {long}6 {long}7')
  assert 'repetition' in check(f'{long}5 {long}6 {long}7 ' + short * 3 + rest)


def test_all_phrases_may_have_one_hash(monkeypatch):
  """Whatever the hashes are, the verdicts are the same."""
  monkeypatch.setattr(webtext, 'hash', lambda word: 7, raising=False)
  for example in clean_examples.EXAMPLES.values():
    for text, _ in example:
      check(text)


def test_each_placeholder_with_each_letter_that_matches_an_ascii_one():
  sentences = ['lorem ipsum', *(f'javascript {verb} {state}' for verb in ('is', 'must be', 'has been')
                                for state in ('disabled', 'enabled')),
               'enable javascript', 'access denied', '404 error', '404 not found', 'page you requested',
               'page cannot be found', 'page not found', 'your browser does not support']
  for sentence in sentences:
    for change in {'': '', 'i': '\u0130', 'I': '\u0131', 's': '\u017f', 'k': '\u212a', 'e': '\xe9'}.items():
      for text in (sentence, sentence.upper(), sentence.title()):
        removed = check(f'a \u2019 {text.replace(*change) if change[0] else text} b')
        assert 'placeholder' in removed or change[0]


def test_few_words_are_stored(monkeypatch):
  monkeypatch.setattr(webtext._CommonWords, 'MAX_WORDS', 10)
  words = webtext._CommonWords()
  for i in range(100):
    assert not words[f'w{i}'] and words['(The)'] and not words['x' * 30] and words['(' * 30 + 'the']
  assert len(words) <= 10 and max(map(len, words)) <= 20


def test_examples():
  for (removed, _), (kept, _) in clean_examples.EXAMPLES.values():
    check(removed)
    check(kept)
  for text in clean_examples.FALSE_POSITIVES.values():
    check(text)


def test_real_text_clean_and_dirty(shared_data):
  rng, found = random.Random(1), collections.Counter()
  with gzip.open(SHARED / 'text/books.jsonl.gz', 'rt') as file:
    texts = [json.loads(line)['text'] for line in file]
  french = (SHARED / 'eval/newstest2014.fr').read_text()
  for _ in range(600):
    size = int(2 ** rng.uniform(6, 15))
    text = rng.choice(texts)
    start = rng.randrange(len(text))
    part = text[start:start + size]
    for _ in range(rng.randrange(3)):
      at = rng.randrange(len(part) + 1)
      other = rng.choice([french, part, '0123456789|,;', '漢字かな', '\u2019\n'])
      begin, n = rng.randrange(len(other) + 1), int(size * rng.random() ** 2)
      part = part[:at] + (other[begin:begin + 60] * n)[:n] + part[at:]
    found.update(check(part) or {''})
  assert min(found[name] for name in ('', 'not_english', 'symbols', 'repetition')) > 20, found


def test_the_rule_of_the_test_tells_verdicts_apart():
  with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError):
    patch.setitem(webtext.FILTER_FUNCTIONS, 'symbols', lambda document, recipe: False)
    test_texts_at_the_limit_of_each_filter()
