"""Text of strangers is read in time linear in its length: every regular expression, and what uses them.

A text of `unit * n` is read at two lengths. Work that is quadratic takes sixteen times as long at four times
the length; at the lengths here that takes a while, so that only what takes any time at all is measured twice,
by the time of this thread, and by the best of several tries.
"""

import ast
import importlib
import io
import itertools
import pkgutil
import re
import time
from types import SimpleNamespace

import hypothesis
import pytest
import regex
from conftest import ROOT
from hypothesis import strategies as st

import gptjax.data
import gptjax.evaluate
from gptjax.data.clean import webtext
from gptjax.data.ngrams import keys, windows
from gptjax.data.sources import files
from gptjax.data.tokenizers import gpt1_text, gpt1_words, long_words, special
from gptjax.errors import InputError
from gptjax.evaluate.scoring import answers
from gptjax.evaluate.tasks import gpt1, pronouns
from gptjax.evaluate.texts import detokenize, sentences

PATTERN = re.Pattern, regex.Pattern
STYLES = [value for value in vars(detokenize).values() if isinstance(value, detokenize.Style)]
SHORT, FACTOR = 2000, 4
INSTANT = 0.002  # s: what takes less for SHORT characters is not quadratic in them
# Matched at one place of a text, and not looked for everywhere.
ANCHORED = {'webtext._SCHEME', 'gpt1_words._NUMBERS', 'gpt1_words._AFTER_HOST', 'gpt1_words._HOST',
            'gpt1_words._LABEL', 'study.NAME', 'pronouns.FIRST_WORD', 'tfds_folder.VERSION',
            'tfds.VERSION', 'jsonl.IN_PART', 'urls._LABELS',
            'http._LOOKS_LIKE_HTML'}
LOOKED_FOR_AT_THE_END = {'gpt1_words._SUFFIX': 2 * gpt1_words.MAX_SUFFIX_LENGTH}  # in so many characters


def modules():
  for package in (gptjax.data, gptjax.evaluate):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
      if found.name != 'gptjax.data.stages.beam':  # which needs an extra; it reads no text of strangers
        yield importlib.import_module(found.name)


def patterns():
  """{name: pattern} of all modules, in collections too, and of those that functions make."""
  found = {}
  for module in modules():
    for name, value in vars(module).items():
      inside = value.values() if isinstance(value, dict) else value
      for number, one in enumerate(inside if isinstance(value, dict | list | tuple) else [value]):
        if isinstance(one, PATTERN):
          found[f'{module.__name__.rpartition(".")[2]}.{name}' + f'[{number}]' * (one is not value)] = one
  for number, style in enumerate(STYLES):
    found |= {f'detokenize, style {number}, rule {i}': rule for i, (rule, _) in
              enumerate(detokenize._splits(style))}
  return found | {'special': special._splitter(('<|endoftext|>', '<|', 'aaaaaaaaab'))}


PATTERNS = patterns()
# Of each class of characters that a pattern here tells from others, some.
CHARACTERS = 'aAé0.,:\'"-@/<\u201d漢_ \n$|'
UNITS = [*CHARACTERS, *map(''.join, itertools.permutations(CHARACTERS, 2)), 'A. ', 'a.a', '. ', ".' ",
         ' - Wikipedia ', '1.2.3.4', 'http://', '://', '<|', 'the ', "n't", 'a@a.', '.".', 'lorem ipsu',
         'page ', '{"', 'Mr. ']
ENDS = ['', 'b', ' ', '\n']


def seconds(work, text):
  began = time.thread_time()
  work(text)
  return time.thread_time() - began


def is_linear(work, text_of, short=SHORT, instant=INSTANT):
  """Whether work on four times the text takes less than eight times as long."""
  if seconds(work, text_of(short)) < instant:
    return True
  least = lambda n: min(seconds(work, text_of(n)) for _ in range(5))
  return any(least(FACTOR * short) < 2 * FACTOR * least(short) for _ in range(3))


def repeated(unit, end=''):
  return lambda n: unit * (n // len(unit)) + end


def test_the_patterns_are_found():
  assert len(PATTERNS) > 60 and 'sentences._END' in PATTERNS and 'gpt1_words._SUFFIX' in PATTERNS
  assert {*ANCHORED, *LOOKED_FOR_AT_THE_END} < set(PATTERNS)


@pytest.mark.parametrize('name', PATTERNS)
def test_every_pattern_takes_linear_time(name):
  pattern, most = PATTERNS[name], LOOKED_FOR_AT_THE_END.get(name, 0)
  count = lambda text: sum(1 for _ in pattern.finditer(text[-most:]))
  match = pattern.match if name in ANCHORED else count
  find = (lambda text: match(text.encode())) if isinstance(pattern.pattern, bytes) else match
  slow = [unit + end for unit in UNITS for end in ENDS if not is_linear(find, repeated(unit, end))]
  assert not slow


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('pattern', [r'\s+$', r'([^ ]+)\.(?![^ ])', r'\S*x', r'"[^"]*"'])
def test_the_test_sees_a_pattern_that_is_not_linear(pattern):
  made = re.compile(pattern)
  find = lambda text: sum(1 for _ in made.finditer(text))
  tried = (is_linear(find, repeated(unit, end), 1000, 0.0005)
           for unit in UNITS for end in ENDS)
  assert (pattern == r'"[^"]*"') == all(tried)


# What makes patterns of its own: of names, which are short (below), or those of `patterns`; or reads flags.
MAKERS = {'detokenize._splits', 'special._splitter', 'pronouns.find_pronoun', 'gpt1_words._exceptions',
          'documents._units', 'match.blank_spans', 'tfds.units', 'datasets_folder._prepared_files'}


def test_no_pattern_is_hidden_in_a_function():
  """Patterns are compiled at the top of their modules, where the test above finds them."""
  hidden = set()
  for folder in ('data', 'evaluate'):
    for path in (ROOT / 'gptjax' / folder).rglob('*.py'):
      for function in ast.walk(ast.parse(path.read_text())):
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
          called = ast.unparse(node.func) if isinstance(node, ast.Call) else ''
          if called.startswith(('re.', 'regex.')) and not called.endswith('.escape'):
            hidden.add(f'{path.stem}.{function.name}')
  assert hidden == MAKERS


RECIPE = webtext.make_recipe('webtext', (), '', '')._replace(
  domains=frozenset({'a.b', 'spam'}), titles=frozenset({'a b'}))
LONG_TEXTS = {
  'sentences': sentences.sentences, 'normalized': answers.normalize,
  'ngram_keys': lambda text: keys.ngram_keys([text]),
  'last_words': lambda text: windows.last_words(text, 8),
  'document': lambda text: webtext.find_filter(webtext.make_document(text, {}), RECIPE),
  'url': lambda text: webtext.find_filter(webtext.make_document('a b', {'url': 'http://' + text}), RECIPE),
  'domain': lambda text: webtext.find_filter(webtext.make_document('a b', {'domain': text}), RECIPE),
  'title': lambda text: webtext.normalize_title(text), 'words': gpt1_words.split_words,
  'standardize': gpt1_text.standardize,
  'train_bpe': lambda text: list(long_words.cut_long_words([text])),
  'separated': lambda text: list(
    files.separated_documents(io.BufferedReader(io.BytesIO(text.encode())), 'p', b'--')),
  'place': lambda text: pronouns.find_pronoun(text, 'he', ['a b', 'A. A.']),
  **{f'detokenize {i}': lambda text, style=style: detokenize.detokenize(text, style)
     for i, style in enumerate(STYLES)},
  **{f'undo {i}': lambda text, style=style: detokenize.retokenize(text, style)
     for i, style in enumerate(STYLES)}}


@pytest.mark.first_cases(4)
@pytest.mark.parametrize('name', LONG_TEXTS)
def test_every_reader_of_text_takes_linear_time(name, monkeypatch):
  monkeypatch.setattr(files, 'CHUNK', 100)
  units = [unit for unit in UNITS if len(unit) != 2] + ['. ', '.a', ' .', "' ", '""', '@-', 'é.', '--', '-a']
  if name == 'words':  # which have no white space in them
    units = [unit for unit in units if not re.search(r'\s', unit)]
  # Lines and words have costs of their own, thousands of times that of a character.
  slow = [unit for unit in units if not is_linear(LONG_TEXTS[name], repeated(unit, 'b'), 5000, 0.05)]
  assert not slow


def test_words_that_are_looked_for_in_a_text_are_short():
  tokenizer = SimpleNamespace(name='t', special_tokens={'x' * 1001: 1, 'y': 2})
  for names in (('all',), ('x' * 1001,)):
    with pytest.raises(InputError, match='has 1,001 characters'):
      special.resolve_names(tokenizer, names)
  assert special.resolve_names(tokenizer, ('y',)) == ('y',)
  kind = gpt1.SCHEMAS['definite_pronoun_resolution'].fields
  assert kind['pronoun'].fault('x' * 254) and kind['candidates'].fault(['a', 'x' * 254])
  assert not kind['pronoun'].fault('x' * 253)


# What the code was before it was linear.

OLD_ABBREVIATION = sentences._ABBREVIATION


def old_sentences(text):
  found = []
  for line in text.split('\n'):
    begin = 0
    for match in sentences._END.finditer(line):
      if not OLD_ABBREVIATION.search(line[begin:match.start()]):
        found.append(line[begin:match.end()])
        begin = match.end()
    found.append(line[begin:])
  return [sentence.strip() for sentence in found if sentence.strip()]


def old_domain_of(fields):
  found = fields.get('domain') or fields.get('url', '')
  found = re.sub(r'^[a-z][a-z0-9+.-]*://', '', found.strip().lower())
  found = re.split(r'[/?#]', found, maxsplit=1)[0].rpartition('@')[2]
  return re.sub(r':\d*$', '', found).removeprefix('www.')


def old_plain_title(title):
  title = webtext.unicodedata.normalize('NFKC', title).replace('_', ' ').strip(' =\t\r\n')
  title = re.sub(r'\s+[-\u2013\u2014|]\s+Wikipedia\b.*$', '', title)
  return ' '.join(title.lower().split())


def old_split(data, separator):
  *parts, rest = data.split(separator)
  return [*((part, False) for part in parts), (rest, True)]


def pieces(*texts):
  return st.lists(st.sampled_from(texts), max_size=14).map(''.join)


@hypothesis.given(pieces('A', 'Mr', 'Prof', 'vs', 'e', '.', '. ', '! ', '? ', '"', '\u201d', ' ', '\n',
                         'The end', "'", 'xMr', '_A', 'é'))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_sentences_are_those_of_the_plain_rule(text):
  assert sentences.sentences(text) == old_sentences(text)


@hypothesis.given(pieces('http', '://', 'www.', 'a.com', 'A', '.', '@', ':', '80', '/', '?', '#', ' ', 'a+b',
                         '\n', '1'))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_domains_are_those_of_the_plain_rule(url):
  assert webtext.get_domain({'url': url}) == old_domain_of({'url': url})


@hypothesis.given(pieces('A', ' ', '  ', '_', '-', '\u2013', '|', 'Wikipedia', 'the free', '=', '\t', '\xa0',
                         's', ','))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_titles_are_those_of_the_plain_rule(title):
  assert webtext.normalize_title(title) == old_plain_title(title)


@hypothesis.given(st.sampled_from(STYLES), pieces('a', '.', ' ', 'Mr', '..', 'b.c', '\n', 'é', 'A'))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_full_stops_are_split_as_by_the_plain_rule(style, text):
  pattern, replacement = detokenize._splits(style)[-1] if style != detokenize.PLAIN else (None, None)
  if pattern and callable(replacement):
    old = re.compile(r'([^ ]+)\.(?![^ ])')
    assert pattern.sub(replacement, text) == old.sub(replacement, text)


@hypothesis.given(st.sampled_from([b'-', b'--', b'-+-', b'---']), pieces('-', '+', 'a', '--', '\n', '-+-'),
                  st.integers(1, 9))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_parts_between_separators_are_those_of_the_whole(separator, text, chunk):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'CHUNK', chunk)
    found = list(files._split(io.BufferedReader(io.BytesIO(text.encode())), separator))
  assert found == old_split(text.encode(), separator)
