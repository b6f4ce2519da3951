"""GPT-1's tokenizer takes time linear in a text, and gives what the plain rules give, which are kept here."""

import itertools
import re

import hypothesis
import numpy as np
import pytest
import regex
from conftest import SHARED
from hypothesis import strategies as st

from gptjax.data.tokenizers import gpt1_text, gpt1_words, loading

ADDRESS = regex.compile(
  r'(?:\S+(?::\S*)?@)?(?:\d{1,3}(?:\.\d{1,3}){3}|(?:(?:[A-Za-z0-9\u00a1-\uffff]'
  r'[A-Za-z0-9\u00a1-\uffff_-]{0,62})?[A-Za-z0-9\u00a1-\uffff]\.)+'
  rf'[{gpt1_words._LOWER}]{{2,63}})(?::\d{{2,5}})?(?:[/?#]\S*)?$')


PIECES = [
  *"aA.b'1%#@:<>=*^&$€£°CkmGBs’…。§—é漢½²-_,", "n't", 'US$', 'Mr.', '...', 'km²', 'mbar', 'kmh',
  'a.m.', 'http', 'www.x.com', '1.2.3.4', "'s",
  '\U0001f600', '\U0001d4b6']
CHUNKS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map(''.join)
WHITE = st.text(' \n\t\r\x0b\x1c\x85\u2028\xa0a-_"—', max_size=16)


def old_words(chunk):
  """The words of a chunk of text that holds no white space, a list of str."""
  exceptions = gpt1_words._exceptions()
  front, back = [], []
  size = -1
  while chunk and chunk not in exceptions and len(chunk) != size:
    size = len(chunk)
    prefix = match.end() if (match := gpt1_words._PREFIX.match(chunk)) else 0
    if prefix and chunk[prefix:] in exceptions:
      front.append(chunk[:prefix])
      chunk = chunk[prefix:]
      break
    match = gpt1_words._SUFFIX.search(chunk[prefix:])
    suffix = prefix + match.start() if match else size
    if suffix < size and chunk[:suffix] in exceptions:
      back.append(chunk[suffix:])
      chunk = chunk[:suffix]
      break
    if prefix:
      front.append(chunk[:prefix])
    if suffix < size:
      back.append(chunk[suffix:])
    chunk = chunk[prefix:suffix]
  return front + old_middle(chunk, exceptions) + back[::-1]


def old_middle(chunk, exceptions):
  if not chunk:
    return []
  if chunk in exceptions:
    return list(exceptions[chunk])
  if ADDRESS.match(chunk):
    return [chunk]
  found, start = [], 0
  for match in gpt1_words._INFIX.finditer(chunk):
    if match.start() > start:
      found += [chunk[start:match.start()], match.group()]
      start = match.end()
  return found + [chunk[start:]] * (start < len(chunk))


def old_merge(word, ranks):
  """The symbols of a word: the pair of lowest rank is merged, everywhere, until none is."""
  symbols = [*word[:-1], word[-1] + gpt1_text.END_OF_WORD]
  while len(symbols) > 1:
    best = min(itertools.pairwise(symbols),
               key=lambda pair: ranks.get(pair, len(ranks)))
    if best not in ranks:
      break
    merged, i = [], 0
    while i < len(symbols):
      both = tuple(symbols[i:i + 2]) == best
      merged.append(symbols[i] + symbols[i + 1] if both else symbols[i])
      i += 1 + both
    symbols = merged
  return symbols



def old_standardize(text):
  """`standardize` with the released patterns."""
  text = gpt1_text._PADDED.sub(r' \g<0> ', text.translate(gpt1_text._REPLACED))
  return re.sub(r'[^\S\n]+', ' ', re.sub(r'[^\S\n]*\n\s*', ' \n ', text))


@pytest.fixture(scope='module')
def gpt1():
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  return loading.load(f'gpt1:{SHARED}/bpe/gpt1')


ADDRESSES = st.lists(st.sampled_from([
  'a', 'bc', 'A', '.', '@', ':', '80', '/', '#', '_', '-', 'é',
  '漢', '\U0001d4b6', '1.2.3.4', 'x' * 63]), min_size=1,
  max_size=9).map(''.join)


@pytest.mark.ci
@hypothesis.given(CHUNKS | ADDRESSES)
@hypothesis.settings(max_examples=2000, deadline=None)
def test_words_are_those_of_the_plain_rules(chunk):
  assert gpt1_words.split_words(chunk) == old_words(chunk)


@hypothesis.given(WHITE)
@hypothesis.settings(max_examples=500, deadline=None)
def test_white_space_is_that_of_the_released_patterns(text):
  assert gpt1_text.standardize(text) == old_standardize(text)


@hypothesis.given(st.text('abeht', min_size=1, max_size=40))
@hypothesis.settings(max_examples=500, deadline=None)
def test_merges_are_those_of_one_pass_after_the_other(gpt1, word):
  assert gpt1._merge(word) == old_merge(word, gpt1._ranks)


SYMBOLS = st.sampled_from(['a', 'b', 'ab', 'ba', 'aa', 'aab', 'b</w>'])


@hypothesis.given(st.lists(st.tuples(SYMBOLS, SYMBOLS), unique=True), st.text('ab', min_size=1, max_size=14))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_merges_of_any_ranks_are_those_of_one_pass_after_the_other(pairs, word):
  """Also where a merge makes a pair of a lower rank than its own."""
  ranks = {pair: i for i, pair in enumerate(pairs)}
  symbols = [*word[:-1], word[-1] + gpt1_text.END_OF_WORD]
  assert gpt1_text.apply_merges(symbols, ranks) == old_merge(word, ranks)


class Counted(dict):
  """Ranks that count how often they are asked."""
  asked = 0

  def get(self, pair, default=None):
    self.asked += 1
    return super().get(pair, default)


@pytest.mark.parametrize('text', ['a', 'ab', 'the'])
def test_merging_a_long_word_asks_for_few_ranks(gpt1, text):
  ranks = Counted(gpt1._ranks)
  symbols = list(text * 10_000)
  gpt1_text.apply_merges(symbols, ranks)
  assert ranks.asked < 5 * len(symbols)


@pytest.mark.parametrize('run', [
  '_', "'", '%', '#', '.', 'a', 'a.', 'a@', 'a@a.', '@a.b#', 'a:', '1-', '(', '漢', "n't", 'Mr.', '€1'])
def test_a_long_run_ends(gpt1, run):
  """In a moment; in time that is quadratic it would take hours."""
  ids = gpt1.encode(run * 50_000)
  assert len(ids)
  some = gpt1.encode(run * 1000)
  assert np.isin(ids, some).mean() > 0.99


@pytest.mark.parametrize('white', [' ', '\t', ' \t', '\xa0'])
def test_a_long_run_of_white_space_ends(gpt1, white):
  assert gpt1.encode('a' + white * 2_000_000 + 'b').tolist() == gpt1.encode('a b').tolist()
