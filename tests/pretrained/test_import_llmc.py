"""Models of llm.c: the logits of transformers, the bits of the file, and refusals."""

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of
from foreign_weights import llmc_file, torch
from torch_models import logits_of, opened, tensors, tokens_for, twin

import gptjax
from gptjax.data.tokenizers import byte_bpe
from gptjax.errors import InputError
from gptjax.pretrained.importing import import_weights

ODD = dict(n_layer=2, n_head=3, n_embd=36, vocab_size=61)


def imported(content, tmp_path, *arguments):
  (tmp_path / 'model.bin').write_bytes(content)
  import_weights(str(tmp_path / 'model.bin'), str(tmp_path / 'out'), *arguments)
  return tmp_path / 'out'


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('multiple', [1, 64, 128])
def test_logits_and_bits_are_those_of_the_model_that_was_written(tmp_path, multiple):
  judge = twin('gpt2', **ODD)
  folder = imported(llmc_file(judge, multiple), tmp_path)
  expected, found = tensors(judge), tensors(opened(folder))
  assert expected.keys() == found.keys()
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name])
  tokens = tokens_for(judge)
  with mesh_of():
    np.testing.assert_allclose(gptjax.load(folder)[0](tokens), logits_of(judge, tokens), atol=1e-4)


def test_bfloat16_becomes_the_same_numbers_in_float32(tmp_path):
  judge = twin('gpt2', **ODD)
  folder = imported(llmc_file(judge, dtype='bfloat16'), tmp_path)
  rounded = judge.to(torch.bfloat16).float()
  expected, found = tensors(rounded), tensors(opened(folder))
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name])
  tokens = tokens_for(rounded)
  np.testing.assert_allclose(logits_of(opened(folder), tokens), logits_of(rounded, tokens), atol=1e-4)


def test_a_tokenizer_is_added(tmp_path):
  byte_bpe.train_bpe(['the blue stone never sings of rain'], 264).save(tmp_path / 'bpe')
  folder = imported(llmc_file(twin('gpt2', vocab_size=264)), tmp_path, f'bpe:{tmp_path}/bpe')
  model, tokenizer = gptjax.load(folder)
  assert model.n_vocab == tokenizer.n_vocab == 264 and opened(folder).config.eos_token_id == 263


LENGTH = len(llmc_file(twin('gpt2', **ODD)))


@pytest.mark.parametrize('header, says', [
  ({'_0': 20240803}, 'is a Llama 3 of llm.c, not a GPT-2 of llm.c'),
  ({'_0': 20240527}, 'is the state of an optimizer of llm.c'),
  ({'_1': 1}, 'has version 1 of the format, not 3 (float32) or 5 (bfloat16)'),
  ({'_1': 5}, f'it has {LENGTH:,} bytes, but the sizes in its header need {1024 + (LENGTH - 1024) // 2:,}'),
  ({'_2': 0}, 'max_seq_len is 0: it must be a positive integer'),
  ({'_4': -1}, 'num_layers is -1: it must be a positive integer'),
  ({'_4': 2**31 - 1}, 'is damaged or cut short: it has'), ({'_6': 3 * 2**27}, 'is damaged or cut short: it'),
  ({'_6': 2**31 - 1}, '4 channels = 8589934588 must be a whole number'),
  ({'_5': 5}, 'channels = 36 is not divisible by num_heads = 5'),
  ({'_7': 60}, 'padded_vocab_size = 60 is less than vocab_size = 61'),
  ({'_7': 129}, 'is damaged or cut short'), ({'_6': 39}, 'is damaged or cut short')])
def test_a_header_that_does_not_fit_is_refused_in_one_line(tmp_path, header, says):
  with pytest.raises(InputError, match=re.escape(says)) as refused:
    imported(llmc_file(twin('gpt2', **ODD), **header), tmp_path)
  assert '\n' not in str(refused.value) and [path.name for path in tmp_path.iterdir()] == ['model.bin']


@pytest.mark.parametrize('length', [4, 1023, 1024, 5000, -1, 1])
def test_a_file_of_another_length_is_refused(tmp_path, length):
  content = llmc_file(twin('gpt2', **ODD))
  content = content + b'\0' if length == 1 else content[:length]
  with pytest.raises(InputError, match=r'is (damaged or )?cut short'):
    imported(content, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['model.bin']


def test_it_needs_no_pytorch(tmp_path):
  (tmp_path / 'model.bin').write_bytes(llmc_file(twin('gpt2', **ODD)))
  code = ('import sys\nsys.modules["torch"] = None\n'
          'from gptjax.pretrained.importing import import_weights\nimport_weights(*sys.argv[1:])')
  subprocess.run([sys.executable, '-c', code, tmp_path / 'model.bin', tmp_path / 'out'], cwd=ROOT,
                 env=ENVIRONMENT, check=True)
  assert opened(tmp_path / 'out').config.n_embd == 36
