"""Character-level tokenizers: every character an entry, every text back as it was, others refused."""

import json
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT
from hypothesis import strategies as st

from gptjax.data.corpus import reader
from gptjax.data.prepare import prepare
from gptjax.data.tokenizers import characters, hf_tokenizer, loading, special, training
from gptjax.errors import InputError
from gptjax.pretrained.tokenizer_files import transformers_files

CHANGES = {'with an end': lambda tokenizer: tokenizer, 'without': characters.without_end}
TEXT = 'To be, or not to be:\n\tthat is the “question” — naïve 日本 \U0001f600\r\n'
UNICODE = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=40)


def plain(text):
  """nanoGPT's tokenizer: (encode, decode)."""
  ids = {c: i for i, c in enumerate(sorted(set(text)))}
  names = {i: c for c, i in ids.items()}
  return lambda s: [ids[c] for c in s], lambda some: ''.join(names[i] for i in some)


@hypothesis.given(UNICODE, st.randoms(use_true_random=False))
@hypothesis.settings(max_examples=100, deadline=None)
def test_ids_are_those_of_a_plain_loop_and_every_text_comes_back(text, rng):
  made = characters.train_characters([text[:3], text[3:]])
  encode, decode = plain(text)
  assert made.n_vocab == len(set(text)) + 1 and made.end_of_text == len(set(text))
  other = ''.join(rng.choices(text, k=50))
  for one in text, other, '':
    ids = made.encode(one)
    assert ids.dtype == np.int32 and ids.tolist() == encode(one)
    assert made.decode(ids) == one == decode(ids.tolist())
  assert made.digest == characters.train_characters(reversed(text)).digest, 'the order does not matter'


@hypothesis.given(UNICODE, UNICODE)
@hypothesis.settings(max_examples=100, deadline=None)
def test_a_text_is_encoded_exactly_if_all_its_characters_are_known(text, other):
  made = characters.train_characters([text])
  if set(other) <= set(text):
    assert made.decode(made.encode(other)) == other
    return
  with pytest.raises(InputError) as raised:
    made.encode(other)
  first = min(set(other) - set(text))
  assert f'U+{ord(first):04X}' in str(raised.value) and '\n' not in str(raised.value)


def test_the_end_of_text_is_an_entry_and_no_part_of_a_text():
  made = characters.train_characters([TEXT, '<|endoftext|>'])
  assert made.end_of_text not in made.encode('<|endoftext|>') and len(made.encode('<|endoftext|>')) == 13
  ids = special.encode(made, ('<|endoftext|>',), 'be<|endoftext|>or')
  assert ids.tolist() == [*made.encode('be'), made.end_of_text, *made.encode('or')]
  assert made.decode(ids) == 'be<|endoftext|>or' and made.eos_ids == (made.end_of_text,)
  for wrong in ([-1], [made.n_vocab]):
    with pytest.raises(InputError, match='not all among'):
      made.decode(wrong)


def test_without_an_end_the_ids_are_those_of_nanogpt():
  made, encode = characters.without_end(characters.train_characters([TEXT])), plain(TEXT)[0]
  assert made.n_vocab == len(set(TEXT)) and made.end_of_text is None
  assert made.eos_ids == () and not made.special_tokens
  assert made.encode(TEXT).tolist() == encode(TEXT) and made.decode(made.encode(TEXT)) == TEXT
  with pytest.raises(InputError, match=f'not among the {len(set(TEXT))} characters'):
    made.encode('Z')
  assert characters.without_end(made).digest == made.digest


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_it_comes_back_from_its_folder_and_by_its_prefix(tmp_path, change):
  made = change(characters.train_characters([TEXT]))
  made.save(tmp_path / 'made')
  for spec in (f'char:{tmp_path}/made', f'{tmp_path}/made'):
    again = loading.load(spec)
    assert (again.name, again.digest, again.n_vocab, again.end_of_text, again.decode(again.encode(TEXT))) == (
      'char', made.digest, made.n_vocab, made.end_of_text, TEXT)
  made.eos_ids = (0, made.n_vocab - 1)
  made.save(tmp_path / 'ends')
  assert loading.load(f'{tmp_path}/ends').eos_ids == made.eos_ids


@pytest.mark.parametrize('content', [
  b'', b'{}', b'[]', b'["<|endoftext|>"]', b'["b", "a"]', b'["b", "a", "<|endoftext|>"]',
  b'["a", "a", "<|endoftext|>"]', b'["ab", "<|endoftext|>"]', b'["", "<|endoftext|>"]',
  b'[1, "<|endoftext|>"]', b'["\\ud800", "<|endoftext|>"]', b'["a", ["b"], "<|endoftext|>"]', b'\xff'])
def test_damaged_files_are_refused_in_one_line(content, tmp_path):
  (tmp_path / characters.FILE).write_bytes(content)
  with pytest.raises(InputError, match=characters.FILE):
    loading.load(f'char:{tmp_path}')


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_transformers_and_tokenizers_give_the_same_ids(tmp_path, change):
  transformers = pytest.importorskip('transformers')
  import tokenizers as library
  made = change(characters.train_characters([TEXT]))
  for name, content in transformers_files(made, 24).items():
    (tmp_path / name).write_bytes(content)
  fast = library.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert theirs.eos_token_id == made.end_of_text and theirs.model_max_length == 24
  for text in TEXT, 'to be', '\n\n  \t', '日':
    ids = made.encode(text).tolist()
    assert fast.encode(text).ids == theirs(text).input_ids == ids
    assert fast.decode(ids, skip_special_tokens=False) == theirs.decode(ids) == text
  with pytest.raises(Exception, match='Missing'):
    fast.encode('Z')
  assert hf_tokenizer.load_folder(tmp_path).digest == made.digest
  (tmp_path / characters.FILE).unlink()
  assert loading.load(str(tmp_path)).digest == made.digest, 'from tokenizer.json alone'


@pytest.mark.parametrize('change', [
  lambda whole: whole['model']['vocab'].update(ab=99), lambda whole: whole['model'].update(unk_token='a'),
  lambda whole: whole.update(normalizer={'type': 'Lowercase'}),
  lambda whole: whole['pre_tokenizer'].update(behavior='Removed')])
def test_a_tokenizer_that_differs_is_left_to_its_library(tmp_path, change):
  made = characters.train_characters(['abc'])
  files = transformers_files(made, 24)
  whole = json.loads(files['tokenizer.json'])
  change(whole)
  for name, content in {**files, 'tokenizer.json': json.dumps(whole).encode()}.items():
    if name != characters.FILE:
      (tmp_path / name).write_bytes(content)
  assert loading.load(str(tmp_path)).name == 'tokenizers'


def test_it_is_trained_on_all_of_a_corpus_and_saved_in_it(tmp_path):
  (tmp_path / 'a.txt').write_text(TEXT * 40, newline='')
  (tmp_path / 'b.txt').write_text('quiz: ' * 60)
  options = dict(validation_fraction=0.2, clean='', workers=1, tfds_dir='', on_error='stop', seq_len=8)
  manifest = prepare([f'text:{tmp_path}/*.txt'], 'train-char', str(tmp_path / 'made'), **options)
  made = loading.load(f'char:{tmp_path}/made/tokenizer')
  assert made.entries[:-1] == sorted(set(TEXT + 'quiz: '))
  assert manifest['tokenizer'] == {'name': 'char', 'digest': made.digest, 'n_vocab': made.n_vocab,
                                   'end_of_text': made.end_of_text}
  corpus = reader.open_corpus(str(tmp_path / 'made'), 'train', verify=True)
  assert made.decode(corpus.tokens(0, 30)) == TEXT[:30]
  assert prepare([f'text:{tmp_path}/*.txt'], 'train-char', str(tmp_path / 'made'), **options) == manifest
  (tmp_path / 'c.txt').write_text('Zebra')
  with pytest.raises(InputError, match=r"c\.txt.*'Z' \(U\+005A\)"):
    prepare([f'text:{tmp_path}/c.txt'], f'char:{tmp_path}/made/tokenizer', str(tmp_path / 'other'), **options)


@pytest.mark.parametrize('spec, says', [
  ('train-char:65', 'determines the number of entries: write train-char'),
  ('train-bpe', 'write train-bpe:N, as in train-bpe:8192'),
  ('train-bpe:x', 'train-bpe:N'), ('char', "tokenizer 'char' is none of"),
  ('char:/nowhere', 'characters.json'), ('train-sentencepiece:300', 'is none of')])
def test_specs_that_are_refused(spec, says, tmp_path):
  (tmp_path / 'a.txt').write_text('abc')
  with pytest.raises(InputError, match=says):
    prepare([f'text:{tmp_path}/a.txt'], spec, str(tmp_path / 'made'), validation_fraction=0.0, clean='',
            workers=1, tfds_dir='', on_error='stop')


def test_the_command_trains_one(tmp_path):
  (tmp_path / 'a.txt').write_text(TEXT, newline='')
  line = [sys.executable, '-m', 'gptjax.data.tokenizers', 'train', '--kind=char',
          f'--source=text:{tmp_path}/a.txt', f'--out={tmp_path}/made']
  run = lambda *flags: subprocess.run([*line, *flags], cwd=ROOT, env=ENVIRONMENT, capture_output=True,
                                      text=True)
  done = run()
  made = loading.load(f'char:{tmp_path}/made')
  assert done.returncode == 0 and made.digest in done.stdout and made.n_vocab == len(set(TEXT)) + 1
  assert made.digest == training.train('char', None, [TEXT], progress=False).digest
  for flags, says in (['--vocab_size=65'], 'n_vocab = 65'), (['--kind=bpe'], '--vocab_size is missing'):
    done = run(*flags)
    assert done.returncode == 2 and says in done.stderr
  with pytest.raises(InputError, match='is empty'):
    training.train('char', None, [''], progress=False)
