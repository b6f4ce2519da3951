"""Ids against a second implementation, the papers' golden ids, and spaCy's words for GPT-1."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import regex
from conftest import SHARED
from hypothesis import strategies as st

from gptjax.command import run as command_module
from gptjax.data.sources import files, python
from gptjax.data.tokenizers import __main__ as tokenizers_command
from gptjax.data.tokenizers import (
  byte_bpe,
  gpt1_text,
  gpt1_words,
  loading,
  long_words,
  sentence_piece,
  training,
)

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f'needs the data folder {SHARED}')
ANY_TEXT = st.text(max_size=60)  # all of Unicode but lone surrogates
AWKWARD = st.lists(st.sampled_from([
  "'s", "'S", "'re", "'RE", '<|endoftext|>', ' ', '  ', '\n', '\n\n', '\t', '\x1c', '\x85', '\xa0',
  '\u2028', '\u3000', '\u200b', 'a', 'é', 'e\u0301', '٣', '½', '²', '_', '日本',
  '\U0001f600', '\u0301', '1', '0', '.', '...', '\0', '\ufeff', 'ſ',
  'İ']), max_size=12).map(''.join)


def by_library(tokenizer):
  """The same BPE in the `tokenizers` library, made from the saved merges: the judge."""
  import tokenizers as library
  encoder, merges = tokenizer.files['encoder.json'], tokenizer.files['vocab.bpe']
  pairs = [tuple(line.split(' ')) for line in merges.decode().split('\n')[1:] if line]
  judge = library.Tokenizer(library.models.BPE(json.loads(encoder), pairs))
  judge.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
  return lambda text: judge.encode(text, add_special_tokens=False).ids


def all_texts(limit):
  """(name, text) of every file of the shared data, up to so many bytes; what is binary as it decodes."""
  for path in sorted(path for path in SHARED.rglob('*') if path.is_file()):
    with (gzip.open if path.suffix == '.gz' else open)(path, 'rb') as file:
      data = file.read(limit)
    if data.startswith(b'{"') and path.name.startswith('books'):  # the novels themselves
      data = '\n'.join(json.loads(line)['text'] for line in data.split(b'\n')[:-1]).encode() or data
    yield path.relative_to(SHARED).as_posix(), data.decode(errors='replace')


@pytest.fixture(scope='module')
def gpt2():
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  return loading.load(f'gpt2:{SHARED}/bpe/gpt2')


@pytest.fixture(scope='module')
def gpt1():
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  return loading.load(f'gpt1:{SHARED}/bpe/gpt1')


@pytest.fixture(scope='module')
def trained():
  return byte_bpe.train_bpe([CORPUS], 400)


CORPUS = ''.join(piece.text for piece in python.pieces()[:12]) + 'aaaa aaa aaaaaaa ' * 9


@pytest.mark.parametrize('text, ids', [
  ('Hello world', '15496 995'), (' the', '262'), ('TL;DR:', '14990 26 7707 25'), ('A:', '32 25'),
  ('Q:', '48 25'), ('\n', '198'), ('\n\n', '628'), (' =', '796'),
  ("don't DON'T", '9099 470 23917 6 51'), ('  two  spaces ', '220 734 220 9029 220'),
  ('2019 1,000', '23344 352 11 830'),
  ('naïve café 日本', '2616 38776 40304 10545 245 98 17312 105')])
def test_gpt2_golden_ids(gpt2, text, ids):
  assert gpt2.encode(text).tolist() == [int(i) for i in ids.split()]


def test_gpt2_is_the_published_one(gpt2):
  assert (gpt2.name, gpt2.n_vocab, gpt2.end_of_text) == ('gpt2', 50257, 50256)
  for name, content in gpt2.files.items():
    assert hashlib.sha256(content).hexdigest() == loading.GPT2_SHA256[name]


@hypothesis.given(st.one_of(ANY_TEXT, AWKWARD))
@hypothesis.settings(max_examples=1500, deadline=None)
def test_gpt2_agrees_with_the_library_on_unicode(gpt2, gpt2_judge, text):
  ids = gpt2.encode(text)
  assert ids.tolist() == gpt2_judge(text)
  assert ids.dtype == np.int32 and not (ids == gpt2.end_of_text).any()
  assert gpt2.decode(ids) == text
  assert gpt2.decode_bytes(ids) == text.encode()


@pytest.fixture(scope='module')
def gpt2_judge(gpt2):
  return by_library(gpt2)


@pytest.mark.ci
@needs_data
@pytest.mark.parametrize('limit', [150_000, pytest.param(-1, marks=pytest.mark.slow)])
def test_gpt2_agrees_with_the_library_on_every_file(gpt2, gpt2_judge, limit):
  count, files_read = 0, 0
  for name, text in all_texts(limit):
    files_read += 1
    for part in (text[i:i + 300_000] for i in range(0, len(text), 300_000)):
      ids = gpt2.encode(part)
      assert ids.tolist() == gpt2_judge(part), name
      assert gpt2.decode(ids) == part
      count += len(ids)
  assert files_read > 50 and count > (1_000_000 if limit > 0 else 12_000_000)


def test_end_of_text_in_a_document_is_text(gpt2):
  ids = gpt2.encode('a<|endoftext|>b')
  assert gpt2.end_of_text not in ids and len(ids) == 9
  assert gpt2.decode([gpt2.end_of_text]) == '<|endoftext|>'


@pytest.mark.parametrize('character', ['a', ' ', '\n', '^', '漢', '\u0301'])
def test_long_runs_do_not_crash_or_stall(gpt2, character):
  text = character * (files.MAX_PIECE if character != '漢' else 100_000)
  assert gpt2.decode(gpt2.encode(text)) == text


def test_gpt2_from_the_cache_of_tiktoken(gpt2, tmp_path, monkeypatch):
  for name, content in gpt2.files.items():
    key = hashlib.sha1((loading.GPT2_URL + name).encode()).hexdigest()
    (tmp_path / key).write_bytes(content)
  monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
  assert loading.load('gpt2').digest == gpt2.digest


def test_other_files_are_not_gpt2(gpt2, trained, tmp_path):
  trained.save(tmp_path)
  with pytest.raises(ValueError, match='does not hold the published'):
    loading.load(f'gpt2:{tmp_path}')
  merges = gpt2.files['vocab.bpe'].decode().split('\n')
  merges[5], merges[900] = merges[900], merges[5]
  (tmp_path / 'encoder.json').write_bytes(gpt2.files['encoder.json'])
  (tmp_path / 'vocab.bpe').write_text('\n'.join(merges))
  with pytest.raises(ValueError, match='does not fit'):
    loading.load(f'bpe:{tmp_path}')


@pytest.mark.parametrize('spec', ['', 'gpt3', 'gpt2:', 'gpt2:/nowhere', 'bpe:/nowhere',
                                  'gpt1:/nowhere', 'sentencepiece:/nowhere.model', '/nowhere'])
def test_what_is_not_there_is_named(spec):
  with pytest.raises(ValueError, match=r'nowhere|is none of') as error:
    loading.load(spec)
  assert '\n' not in str(error.value)


@hypothesis.given(st.one_of(ANY_TEXT, st.text('she salor', max_size=40)))
@hypothesis.settings(max_examples=300, deadline=None)
def test_trained_bpe_agrees_with_the_library(trained, text):
  ids = trained.encode(text)
  assert ids.tolist() == by_library(trained)(text)
  assert trained.decode(ids) == text


@needs_data
def test_trained_bpe_agrees_with_the_library_on_real_text():
  text = (SHARED / 'text/tinyshakespeare/input.txt').read_text()
  made = byte_bpe.train_bpe([text[:500_000]], 3000)
  ids = made.encode(text)
  assert ids.tolist() == by_library(made)(text)
  assert (made.n_vocab, made.end_of_text, made.name) == (3000, 2999, 'bpe')
  assert len(text) / len(ids) > 2.9


def test_training_has_one_result(trained):
  script = ('import sys; from gptjax.data.tokenizers import byte_bpe; '
            'print(byte_bpe.train_bpe([sys.stdin.read()], 400).digest)')
  for threads in '1', '3':
    done = subprocess.run([sys.executable, '-c', script], input=CORPUS, capture_output=True,
                          text=True, check=True, env={**os.environ, 'RAYON_NUM_THREADS': threads})
    assert done.stdout.strip() == trained.digest


def test_training_on_too_little_text_says_how_much_it_gives():
  with pytest.raises(ValueError, match='choose at most 258'):
    byte_bpe.train_bpe(['ab'], 300)
  with pytest.raises(ValueError, match='257'):
    byte_bpe.train_bpe(['ab'], 256)


def test_every_kind_comes_back_from_its_folder(gpt2, gpt1, trained, tmp_path):
  piece = sentence_piece.train_sentencepiece([CORPUS], 420)
  text = 'She sells the sea.'
  for made in gpt2, gpt1, trained, piece:
    made.save(tmp_path / made.name)
    again = loading.load(str(tmp_path / made.name))
    assert (again.name, again.digest, again.n_vocab, again.end_of_text) == (
      made.name, made.digest, made.n_vocab, made.end_of_text)
    assert again.encode(text).tolist() == made.encode(text).tolist()
  assert len({made.digest for made in (gpt2, gpt1, trained, piece)}) == 4


@pytest.mark.parametrize('word, ids', [
  ('the', [481]), ('very', [963]), ('positive', [6353]), ('negative', [9503]), ('hello', [3570]),
  ('world', [1276]), ('.', [239]), ('transformer', [2973, 5353]), ('HELLO', [3570]),
  ('xylophonist', [26702, 518, 1031, 25688]), ('a\n\n \nb', [246, 40477, 259]), ('', []),
  (' \n', []), ('\u4e00', [0])])
def test_gpt1_golden_ids(gpt1, word, ids):
  assert gpt1.encode(word).tolist() == ids


def test_gpt1_clean_up_is_the_released_one():
  """The pattern of the released `text_utils.py`, where a backslash is not padded but a plus is."""
  import re
  text = ('a--b "c" (d) e\\f g+h i...j; k|l_m{n}~o! p? * q, [r]/s \u2014 t\u2026 u\u00b4s  \n \n\t '
          'v:w.x\'y')
  expected = text
  for before, after in [('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")]:
    expected = expected.replace(before, after)
  expected = re.sub(r"""(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|\++|\/+|\*+|\[+|\]+|}+|{+|\|+|_+)""",
                    r' \1 ', expected)
  expected = re.sub(r'\s*\n\s*', ' \n ', expected)
  expected = re.sub(r'[^\S\n]+', ' ', expected)
  assert gpt1_text.standardize(text) == expected


def test_gpt1_words_are_spacys():
  """Cases from spaCy 3.8's blank English tokenizer."""
  with open(os.path.join(os.path.dirname(__file__), 'gpt1_words.json'), encoding='utf-8') as file:
    cases = json.load(file)
  assert len(cases) > 1500
  wrong = {chunk: (gpt1_words.split_words(chunk), words) for chunk, words in cases.items()
           if gpt1_words.split_words(chunk) != words}
  assert not wrong


@hypothesis.given(st.text(max_size=30).map(lambda text: ''.join(text.split())))
@hypothesis.settings(max_examples=500, deadline=None)
def test_gpt1_words_lose_nothing(chunk):
  words = gpt1_words.split_words(chunk)
  assert ''.join(words) == chunk and all(words)


def test_gpt1_loses_case_and_white_space_and_no_more(gpt1):
  text = 'He said:  "I don\'t know\n\n  MR Smith"'
  assert gpt1.decode(gpt1.encode(text)) == 'he said : " i do n\'t know\nmr smith "'
  again = gpt1.decode(gpt1.encode(text))
  assert gpt1.encode(again).tolist() == gpt1.encode(text).tolist()


@pytest.mark.parametrize('kind', ['gpt2', 'gpt1', 'trained', 'sentencepiece'])
def test_pieces_of_a_long_document_give_the_ids_of_the_whole(kind, request, monkeypatch):
  monkeypatch.setattr(files, 'MAX_PIECE', 200)
  made = (sentence_piece.train_sentencepiece([CORPUS], 420) if kind == 'sentencepiece'
          else request.getfixturevalue(kind))
  odd = "She can't sell\n\n sea  shells, he said;\tthe shore's 'll  ...  \n" * 3
  text = (odd + CORPUS[:300] + ' one two' * 90) * 4
  pieces = list(files.document_pieces(text, '', {}))
  assert len(pieces) > 5 and ''.join(piece.text for piece in pieces) == text
  ids = np.concatenate([made.encode_part(piece.text, piece.start == 0) for piece in pieces])
  assert ids.tolist() == made.encode(text).tolist()


def test_sentencepiece_keeps_text(tmp_path):
  made = sentence_piece.train_sentencepiece([CORPUS], 420)
  made.save(tmp_path)
  again = loading.load(f'sentencepiece:{tmp_path}/sentencepiece.model')
  for text in 'She  sells\nsea shells', ' naïve 日本 \U0001f600', '</s>':
    assert again.decode(again.encode(text)) == text
    assert again.end_of_text not in again.encode(text)
  assert again.n_vocab == 420
  assert sentence_piece.train_sentencepiece([CORPUS], 420).digest == made.digest
  with pytest.raises(ValueError, match='5000 entries'):
    sentence_piece.train_sentencepiece([CORPUS], 5000)


@pytest.mark.parametrize('kind', ['bpe', 'sentencepiece'])
def test_train_command(kind, tmp_path, monkeypatch, capsys):
  (tmp_path / 'a.txt').write_text(CORPUS)
  command = [sys.executable, '-m', 'gptjax.data.tokenizers', 'train', f'--kind={kind}',
             '--vocab_size=430', f'--source=text:{tmp_path}/a.txt', f'--out={tmp_path}/made']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  made = loading.load(f'{tmp_path}/made')
  assert made.n_vocab == 430 and made.digest in done.stdout
  assert made.digest == training.train(kind, 430, [CORPUS], progress=False).digest, 'in another process'
  shutil.rmtree(tmp_path / 'made')
  for flag in ('--vocab_size=90000', '--kind=words', '--source=text:/nowhere',
               f'--out={tmp_path}/a.txt/made'):
    monkeypatch.setattr(sys, 'argv', [*command[2:], flag])
    with pytest.raises(SystemExit) as ended:
      command_module.run(tokenizers_command.main, 'tokenizers')
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith('tokenizers: ')


@hypothesis.given(st.lists(st.sampled_from([
  'a b', '\n', ' ', '.', 'x' * 1001, 'y1' * 900, ' ' * 1500, '\u3000 ' * 600, '1' * 2500, '漢字。' * 500,
  '\x1c.' * 5000, '']), max_size=6))
@hypothesis.settings(max_examples=300, deadline=None)
def test_words_are_cut_for_the_training_if_they_are_long_and_no_others(parts):
  text = ''.join(parts)
  found = list(long_words.cut_long_words([text]))
  words = lambda text: regex.findall(byte_bpe.PATTERN, text)
  assert ''.join(found) == text and all(len(one) <= 1001 for part in found for one in words(part))
  a_few = regex.search('[^ \n]{8001}', text)  # words without a space between them, cut together
  if all(len(one) <= 1000 for one in words(text)) and not a_few and '\x1c' not in text:
    assert found == [text]


@pytest.mark.parametrize('unit', ['a', ' ', 'ab', '.', '1'])
def test_a_tokenizer_is_trained_on_a_word_of_a_million_characters(unit):
  """In a moment; in time that is quadratic it would take hours."""
  assert byte_bpe.train_bpe([unit * (1_000_000 // len(unit)), 'a b'], 258).n_vocab == 258
