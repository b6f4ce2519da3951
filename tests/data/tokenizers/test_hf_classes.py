"""Tokenizers of Llama, Qwen and their relatives: the ids of transformers, or a line that says why not."""

import json
import re

import pytest
import tokenizers as library
from hf_tokenizers import KINDS, write

transformers = pytest.importorskip('transformers')

from gptjax.data.tokenizers import hf_tokenizer, loading, special, token_bytes  # noqa: E402
from gptjax.errors import InputError  # noqa: E402
from gptjax.pretrained.run_weights import save_corpus_tokenizer  # noqa: E402

TEXTS = ['the cat sat', ' and  two spaces', '\n\n  x = 12\n    y  3', "don't DON'T we've", '', ' ',
         '1234567 8', 'naïve café e\u0301 日本 \U0001f600', 'trailing  ', 'a' * 99]
# The tokenizers whose class builds something else than their tokenizer.json.
OTHER = {'smollm2': 'pre_tokenizer', 'llama2 of transformers 4': 'normalizer and pre_tokenizer'}
SAME = [kind for kind in KINDS if kind not in OTHER]


def ids_of(theirs, **options):
  return [theirs(text, **options).input_ids for text in TEXTS]


def check(folder, ours):
  """Ids, begin, end and decoded texts are those of AutoTokenizer."""
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  encoded = [ours.encode(text).tolist() for text in TEXTS]
  assert encoded == ids_of(theirs, add_special_tokens=False)
  assert [special.after_prefix(ours, ids).tolist() for ids in encoded] == ids_of(theirs)
  assert ours.end_of_text == theirs.eos_token_id
  assert ours.start_of_text == next(i for i in (theirs.bos_token_id, *ours.text_prefix, theirs.eos_token_id)
                                    if i is not None)
  decode = lambda ids: theirs.decode(ids, clean_up_tokenization_spaces=False)
  assert [ours.decode(ids) for ids in encoded] == list(map(decode, encoded))


@pytest.mark.parametrize('kind', SAME)
def test_ids_begin_and_end_are_those_of_transformers(tmp_path, kind, capsys):
  ours = hf_tokenizer.load_folder(write(kind, tmp_path))
  check(tmp_path, ours)
  assert not capsys.readouterr().err
  counted = token_bytes.token_bytes(ours)
  text = 'the cat sat on the mat, and 12 dogs\n\n  x = 1'
  assert counted.n_bytes[ours.encode(text)].sum() + counted.per_document == len(text.encode())


@pytest.mark.parametrize('kind', OTHER)
def test_a_file_that_its_class_does_not_read_as_it_is_counts_and_a_line_says_so(tmp_path, kind, capsys):
  ours = hf_tokenizer.load_folder(write(kind, tmp_path))
  line = capsys.readouterr().err
  assert f'has another {OTHER[kind]}' in line and line.count('\n') == 1
  of_file = library.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  assert [ours.encode(text).tolist() for text in TEXTS] == [
    of_file.encode(text, add_special_tokens=False).ids for text in TEXTS]
  assert ids_of(transformers.AutoTokenizer.from_pretrained(tmp_path), add_special_tokens=False) != [
    ours.encode(text).tolist() for text in TEXTS]
  write(kind, tmp_path, tokenizer_class='PreTrainedTokenizerFast')  # what the line says
  check(tmp_path, hf_tokenizer.load_folder(tmp_path))
  assert not capsys.readouterr().err


@pytest.mark.parametrize('kind, name', [
  ('llama3', 'LlamaTokenizer'), ('llama3', 'LlamaTokenizerFast'), ('llama3', None),
  ('llama3', 'TokenizersBackend'), ('qwen3', 'Qwen2TokenizerFast'), ('qwen3', None),
  ('qwen3', 'PreTrainedTokenizerFast'), ('llama2', 'LlamaTokenizerFast'),
  ('llama2', 'PreTrainedTokenizerFast')])
def test_every_name_of_the_class_gives_the_same_tokenizer(tmp_path, kind, name):
  plain = hf_tokenizer.load_folder(write(kind, tmp_path / 'plain'))
  ours = hf_tokenizer.load_folder(write(kind, tmp_path / 'other', tokenizer_class=name))
  check(tmp_path / 'other', ours)
  assert ours.files['tokenizer.json'] == plain.files['tokenizer.json']


@pytest.mark.parametrize('kind, settings', [
  ('llama3', dict(add_bos_token=True)), ('llama3', dict(add_bos_token=False)),
  ('llama3', dict(add_eos_token=False)), ('llama3', dict(bos_token=None)),
  ('llama2', dict(add_bos_token=False)), ('llama2', dict(add_bos_token=None, add_eos_token=None)),
  ('qwen3', dict(add_bos_token=True)), ('qwen3', dict(add_bos_token=True, bos_token='<|im_start|>')),
  ('smollm2', dict(tokenizer_class='PreTrainedTokenizerFast', add_bos_token=True))])
def test_what_precedes_a_text_is_what_transformers_puts_there(tmp_path, kind, settings):
  ours = hf_tokenizer.load_folder(write(kind, tmp_path / 'in', **settings))
  check(tmp_path / 'in', ours)
  ours.save(tmp_path / 'saved')
  saved = hf_tokenizer.load_folder(tmp_path / 'saved')
  assert (saved.text_prefix, saved.start_of_text) == (ours.text_prefix, ours.start_of_text)


def test_a_model_that_was_trained_on_a_corpus_has_no_prefix_that_is_not_in_it(tmp_path):
  ours = hf_tokenizer.load_folder(write('llama3', tmp_path / 'in'))
  ours.save(tmp_path / 'corpus')
  save_corpus_tokenizer(tmp_path / 'corpus', tmp_path / 'run')
  trained, ids = loading.load(str(tmp_path / 'run' / 'tokenizer')), ours.encode(TEXTS[0])
  assert special.after_prefix(ours, ids).tolist() == [ours.start_of_text, *ids]
  assert special.after_prefix(trained, ids).tolist() == list(ids)


def test_a_file_of_tiktoken_beside_tokenizer_json_is_not_read(tmp_path):
  write('llama3', tmp_path)
  (tmp_path / 'tokenizer.model').write_text('IQ== 0\nIg== 1\n')
  check(tmp_path, hf_tokenizer.load_folder(tmp_path))


@pytest.mark.parametrize('kind, change, part', [
  ('qwen3', lambda whole: whole.update(normalizer=None), 'normalizer'),
  ('qwen3', lambda whole: whole['pre_tokenizer']['pretokenizers'][0].update(invert=True), 'pre_tokenizer'),
  ('qwen3', lambda whole: whole['model'].update(ignore_merges=True), 'model.ignore_merges'),
  ('llama2', lambda whole: whole['model'].update(byte_fallback=False), 'model.byte_fallback'),
  ('llama2', lambda whole: whole['pre_tokenizer'].update(prepend_scheme='always'), 'pre_tokenizer')])
def test_each_difference_from_the_class_is_named(tmp_path, kind, change, part, capsys):
  write(kind, tmp_path)
  whole = json.loads((tmp_path / 'tokenizer.json').read_text())
  change(whole)
  (tmp_path / 'tokenizer.json').write_text(json.dumps(whole))
  ours = hf_tokenizer.load_folder(tmp_path)
  assert f'has another {part},' in capsys.readouterr().err
  of_file = library.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  assert ours.encode(TEXTS[0]).tolist() == of_file.encode(TEXTS[0], add_special_tokens=False).ids


@pytest.mark.parametrize('kind, settings, says', [
  ('llama3', dict(tokenizer_class='Other'), "tokenizer_class = 'Other' is not supported, only GPT2Tokenizer"),
  ('smollm2', dict(tokenizer_class='OpenAIGPTTokenizer'), 'differs from tokenizer_class OpenAI'),
  ('smollm2', {}, "pre_tokenizer = 'Sequence' differs from tokenizer_class GPT2Tokenizer")])
def test_other_classes_and_contradictions_in_a_folder_of_gpt2_are_refused(tmp_path, kind, settings, says):
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'gpt2'}))
  write(kind, tmp_path, **settings)
  with pytest.raises(InputError, match=re.escape(says)):
    hf_tokenizer.load_folder(tmp_path)


@pytest.mark.parametrize('kind', ['qwen3', 'llama2'])
def test_a_class_that_needs_tokenizer_json_is_refused_without_it(tmp_path, kind):
  write(kind, tmp_path)
  (tmp_path / 'tokenizer.json').unlink()
  (tmp_path / 'vocab.json').write_text('{}')
  with pytest.raises(InputError, match=r'needs a tokenizer\.json, which is missing'):
    hf_tokenizer.load_folder(tmp_path)
