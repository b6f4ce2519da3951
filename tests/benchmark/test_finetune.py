"""The benchmark of fine-tuning: all contenders train on the same examples, and wrong flags are one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT
from finetune import published

from gptjax.benchmark.subjects import finetune
from gptjax.data.tokenizers import byte_bpe
from gptjax.errors import InputError


@pytest.fixture(scope='module')
def flags(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sets')
  byte_bpe.train_bpe(['a "fine" film, the film, no'], 260).save(folder / 'bpe')
  published.write(folder, 'glue/sst2', 'glue/stsb')
  return [f'--tokenizer=bpe:{folder / "bpe"}', f'--tfds_dir={folder}', '--n_ctx=32', '--n_layer=1',
          '--n_embd=64', '--batches=2', '--turns=2']


@pytest.mark.ci
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_all_contenders_train_and_are_compared(flags, tmp_path):
  pytest.importorskip('transformers')
  pytest.importorskip('accelerate')
  out = tmp_path / 'finetune.json'
  command = [sys.executable, '-m', 'gptjax.benchmark', 'finetune', *flags, f'--out={out}',
             f'--contenders={",".join(finetune.CONTENDERS)}']
  done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
  assert done.returncode in (0, 1), done.stderr
  found = json.loads(out.read_text())
  assert [row['who'] for row in found['rows']] == list(finetune.CONTENDERS)
  assert all(row['turns'] == 2 and row['least'] > 0 for row in found['rows'])
  assert [row['ratio'] is None for row in found['rows']] == [True, False, False, False]
  assert done.returncode == (not all(gate['holds'] for gate in found['gates']))
  assert len(found['gates']) == len(finetune.TARGETS)
  examples, n = found['details']['examples'], 6  # in the set; a batch has room for all
  assert all(own == [n] * 2 for own in examples.values()), 'one pass over the set'


@pytest.mark.parametrize('length', [1, 22, 23, 100])
def test_a_turn_takes_batches_of_all_lengths_and_each_at_most_once(length):
  batches = list(range(length))
  for turn in range(5):
    assert finetune.representative(batches, batches, length + turn, turn) == batches
    chosen = finetune.representative(batches[::-1], batches[::-1], max(length // 2, 1), turn)
    assert chosen == sorted(set(chosen)) and np.diff([0, *chosen, length]).max() <= 4


@pytest.mark.parametrize('more, words', [
  (['--contenders=trainer'], 'must include gptjax'), (['--contenders=gptjax,keras'], 'keras'),
  (['--task=stsb', '--contenders=gptjax'], 'only tasks of classes')])
def test_what_cannot_be_compared_is_refused(flags, more, words, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  with pytest.raises(InputError, match=words):
    finetune.main([*flags, *more])
