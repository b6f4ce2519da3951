"""De-tokenizers: what they do can be undone, on any text, and on real text there is hardly an exception."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.evaluate.texts.detokenize import (
  BILLION,
  BOOKS,
  MARK,
  PLAIN,
  PTB,
  WIKITEXT,
  count_kept_spans,
  detokenize,
  retokenize,
)

STYLES = {'wikitext': WIKITEXT, 'ptb': PTB, '1bw': BILLION, 'books': BOOKS, 'plain': PLAIN}
WORDS = ('the', 'Dr.', 'U.S.', 'U.S', '.', ',', '"', "''", '``', "'", "'s", "n't", 'do', 'don', "'t", '(',
         ')', '@-@', '@,@', '@.@', '1', '000', '$', 'N', '%', '-LRB-', '-RRB-', '<unk>', '-', '1,000', '3.5',
         'a-b', '/', '?', '!', '\u2060', '\u2061', '\ue000', '\xa0', '', '\t', 'é', '"so"', '...', ';',
         "o'clock", '[', ']', '#')
pieces = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=4)), max_size=12).map(' '.join)
texts = st.one_of(st.text(), pieces, st.lists(pieces.map(lambda line: f' {line} ')).map('\n'.join))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', STYLES)
@given(text=texts)
@settings(deadline=None, max_examples=400)
def test_any_text_comes_back(name, text):
  assert retokenize(detokenize(text, STYLES[name]), STYLES[name]) == text


@pytest.mark.parametrize('name, stored, natural', [
  ('wikitext', ' He had a guest @-@ starring role ( in " Teddy \'s Story " ) for $ 1 @,@ 000 @.@ 5 . \n',
   'He had a guest-starring role (in "Teddy\'s Story") for $1,000.5.\n'),
  ('wikitext', ' \n = Robert Boulter = \n \n', '\n= Robert Boulter =\n\n'),
  ('wikitext', ' Dr. A. Smith of the U.S. did not ; and / or 50 % ! \n',
   'Dr. A. Smith of the U.S. did not; and/or 50%!\n'),
  ('ptb', " mr. <unk> said it was n't the company 's $ N million or N % \n",
   "mr. <unk> said it wasn't the company's $N million or N%\n"),
  ('1bw', '" I don \'t know , " said Mr. Smith , who isn \'t there .\n',
   '"I don\'t know," said Mr. Smith, who isn\'t there.\n'),
  ('books', "`` Well , '' said he -LRB- and smiled -RRB- , `` I did n't , you 'll see . ''",
   '"Well," said he (and smiled), "I didn\'t, you\'ll see."'),
])
def test_natural_text_is_what_a_person_would_write(name, stored, natural):
  assert detokenize(stored, STYLES[name]) == natural
  assert count_kept_spans(natural) == 0


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', ['wiki.test.raw', 'test.txt', 'valid.txt', 'train.txt'])
def test_the_real_files_come_back_and_hardly_a_word_is_marked(shared_data, name):
  text = (shared_data / 'text' / 'wikitext-2' / name).read_bytes().decode()
  if name == 'train.txt':
    text = text[:2_000_000]
  natural = detokenize(text, WIKITEXT)
  assert retokenize(natural, WIKITEXT) == text
  assert count_kept_spans(natural) < len(text.split()) / 2000
  assert len(natural) < 0.97 * len(text)


def test_openais_lambada_needs_none_and_books_come_back(shared_data):
  import json
  lines = (shared_data / 'eval' / 'lambada_test.jsonl').read_text().splitlines()
  for line in lines[:500]:
    text = json.loads(line)['text']
    assert retokenize(detokenize(text, BOOKS), BOOKS) == text


def test_a_mark_is_on_the_smallest_stretch_that_needs_it():
  natural = detokenize(' one , two,three , four \n', WIKITEXT)
  assert natural == f'one, {MARK}two,three{MARK} , four\n'
