"""The token by which the texts of a model begin: from its folder, kept in what it is saved to, and used."""

import json
from types import SimpleNamespace

import pytest
import tokenizers

from gptjax.data.tokenizers import loading
from gptjax.evaluate.core import types
from gptjax.evaluate.scoring.evaluated_model import make_request
from gptjax.generate import generation
from gptjax.pretrained.run_weights import save_corpus_tokenizer

BEGIN, END, OTHER = range(3)
NAMES = ['<|begin|>', '<|end|>', '<|other|>']
WORDS = 'the blue stone never sings of rain'
ROLES = {'bos_token': NAMES[BEGIN], 'eos_token': NAMES[END]}


def written(folder, settings=ROLES, **files):
  """Write a tokenizer to a folder, and {file name without its end: content}."""
  folder.mkdir(exist_ok=True)
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.train_from_iterator([WORDS], tokenizers.trainers.BpeTrainer(
    vocab_size=270, special_tokens=NAMES, show_progress=False,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
  made.save(str(folder / 'tokenizer.json'))
  for name, content in {'tokenizer_config': settings, **files}.items():
    (folder / f'{name}.json').write_text(json.dumps(content))
  return folder


@pytest.mark.parametrize('files, start', [
  ({}, END),                                          # not a model: a corpus, whose documents end with END
  ({'config': {}}, BEGIN),
  ({'config': {}, 'settings': {'eos_token': NAMES[END]}}, END),
  ({'config': {'bos_token_id': OTHER}}, OTHER),
  ({'config': {'bos_token_id': 200}}, BEGIN),         # a default of the config, an ordinary token here
  ({'config': {'bos_token_id': END}, 'generation_config': {'bos_token_id': OTHER}}, OTHER),
  ({'config': {'bos_token_id': None}, 'generation_config': {'eos_token_id': 7}}, BEGIN)])
def test_it_is_that_of_the_folder_and_of_each_copy(files, start, tmp_path):
  tokenizer = loading.load(str(written(tmp_path / 'first', **files)))
  assert (tokenizer.start_of_text, tokenizer.end_of_text) == (start, END)
  tokenizer.save(tmp_path / 'copy')
  again = loading.load(str(tmp_path / 'copy'))
  assert (again.start_of_text, again.end_of_text, again.eos_ids) == (start, END, tokenizer.eos_ids)
  assert again.digest == tokenizer.digest


@pytest.mark.parametrize('begin_of_text, start', [(None, END), (OTHER, OTHER)])
def test_a_model_of_ones_own_begins_as_its_corpus_does(begin_of_text, start, tmp_path):
  released = loading.load(str(written(tmp_path / 'released', config={})))
  released.save(tmp_path / 'corpus')
  save_corpus_tokenizer(tmp_path / 'corpus', tmp_path / 'run', begin_of_text)
  assert loading.load(str(tmp_path / 'run' / 'tokenizer')).start_of_text == start


def test_texts_begin_with_it(tmp_path):
  tokenizer = loading.load(str(written(tmp_path / 'model', config={})))
  evaluated = SimpleNamespace(tokenizer=tokenizer, model=SimpleNamespace(n_ctx=64))
  assert make_request(evaluated, '', WORDS).ids[0] == BEGIN
  prompts = types.make_requests(evaluated, types.TYPES['multiple_choice'], ['the blue', 'the stone'])
  assert [request.ids[0] for request in prompts] == [BEGIN] * 2
  assert generation.encode_prompts([], tokenizer, 64)[0].tolist() == [BEGIN]
