"""Special tokens that a text may contain: read as transformers does where asked for, as text otherwise."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, tiny_config

from gptjax.data.corpus.reader import open_corpus
from gptjax.data.tokenizers import byte_bpe, sentence_piece, special
from gptjax.errors import InputError
from gptjax.finetune import data as finetune_data
from gptjax.finetune.tasks import published
from gptjax.finetune.tasks.examples import Example
from gptjax.pretrained.tokenizer_files import transformers_files

END = byte_bpe.END_OF_TEXT
WORDS = 'the blue stone never sings of rain, and trees walk under it; '
TEXTS = ['', 'a stone', END, f'a{END}b', f'{END}a {END} b{END}{END}', END[:-1], f'rain {END}\n the stone']


@pytest.fixture(scope='module')
def tokenizer():
  return byte_bpe.train_bpe([WORDS * 9], 290)


def test_ids_are_those_of_transformers_where_names_are_read_as_tokens(tokenizer, tmp_path):
  transformers = pytest.importorskip('transformers')
  for name, content in transformers_files(tokenizer, 24).items():
    (tmp_path / name).write_bytes(content)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in TEXTS:
    assert special.encode(tokenizer, (END,), text).tolist() == theirs.encode(text)
    assert tokenizer.end_of_text not in special.encode(tokenizer, (), text), 'text is text by default'
    assert special.encode(tokenizer, (), text).tolist() == tokenizer.encode(text).tolist()


def test_names_are_checked_and_all_stands_for_all(tokenizer):
  assert special.resolve_names(tokenizer, ['all']) == special.resolve_names(tokenizer, [END]) == (END,)
  assert special.resolve_names(tokenizer, []) == ()
  with pytest.raises(InputError, match=r"special token '<sep>' is not one of .* which has '<.endoftext.>'"):
    special.resolve_names(tokenizer, ['<sep>'])


def test_pieces_of_sentencepiece_have_their_control_tokens():
  made = sentence_piece.train_sentencepiece([WORDS * 9], 280)
  ids = special.encode(made, special.resolve_names(made, ['</s>']), 'a stone</s>the rain')
  assert ids.tolist() == [*made.encode('a stone'), made.end_of_text, *made.encode('the rain')]


def test_a_corpus_has_special_tokens_where_the_flag_names_them(tokenizer, tmp_path):
  (tmp_path / 'turns.jsonl').write_text(json.dumps({'text': f'a stone{END}the rain'}) + '\n')
  tokenizer.save(tmp_path / 'bpe')
  found = {}
  for name, flags in {'text': [], 'read': [f'--special_tokens={END}']}.items():
    done = subprocess.run(
      [sys.executable, '-m', 'gptjax.data.prepare', f'--source=jsonl:{tmp_path}/turns.jsonl',
       f'--tokenizer=bpe:{tmp_path}/bpe', f'--out={tmp_path}/{name}', '--validation_fraction=0', *flags],
      env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    corpus = open_corpus(str(tmp_path / name), 'train', verify=True)
    found[name] = np.asarray(corpus.tokens(0, corpus.n_tokens)).tolist()
  end = [tokenizer.end_of_text]
  assert found['text'] == tokenizer.encode(f'a stone{END}the rain').tolist() + end
  assert found['read'] == [*tokenizer.encode('a stone'), *end, *tokenizer.encode('the rain'), *end]
  done = subprocess.run(
    [sys.executable, '-m', 'gptjax.data.prepare', f'--source=jsonl:{tmp_path}/turns.jsonl',
     f'--tokenizer=bpe:{tmp_path}/bpe', f'--out={tmp_path}/other', '--special_tokens=<sep>'],
    env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
  assert done.returncode == 2 and "special token '<sep>' is not one of" in done.stderr
  assert not (tmp_path / 'other' / 'manifest.json').exists()


def test_examples_of_a_task_have_special_tokens_where_the_config_names_them(tokenizer):
  config = tiny_config(**{'model.n_vocab': 303, 'data.seq_len': 24})
  config.model.n_vocab = tokenizer.n_vocab
  example = Example((f'a{END}b',), (), 0, 0)
  task = published.find('sst2')
  made = lambda: finetune_data.encode_examples(task, [example], tokenizer, config, 0, 'sst2').tokens.tolist()
  assert tokenizer.end_of_text not in made()
  config.data.special_tokens = (END,)
  assert made() == [290, *tokenizer.encode('a'), tokenizer.end_of_text, *tokenizer.encode('b'), 292]
