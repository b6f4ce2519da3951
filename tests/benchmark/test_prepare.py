"""The benchmark of prepare's stages: a line through the sizes, distinct copies of a text, and a real run."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.benchmark import prepare
from gptjax.data.tokenizers import byte_bpe
from gptjax.errors import InputError


def test_the_start_does_not_count_and_a_bend_is_noticed():
  assert prepare.line([1, 2, 4], [1.5, 2.0, 3.0]) == pytest.approx((1, 0.5, 0))
  assert prepare.line([1, 2, 4], [1.0, 4.0, 16.0])[2] > 0.05


def test_copies_of_a_text_have_the_same_lengths_and_other_words(tmp_path):
  rng = np.random.default_rng(0)
  words = [''.join(rng.choice(list('abcdefghij'), rng.integers(3, 9))) for _ in range(800)]
  source = tmp_path / 'text.txt'
  source.write_text('\n\n'.join(' '.join(rng.choice(words, 100)) for _ in range(40)))
  size, n = prepare.write_text(f'text:{source}', '', 3 * source.stat().st_size / 1e6, tmp_path / 'out.jsonl')
  texts = [json.loads(line)['text'] for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
  assert n == len(texts) and size == sum(map(len, texts)) and size >= 3 * source.stat().st_size - 100
  copies = n // 3
  first, second = texts[0], texts[copies]
  assert [len(word) for word in first.split(' ')] == [len(word) for word in second.split(' ')]
  assert 0.3 < np.mean([a != b for a, b in zip(first.split(' '), second.split(' '))]) < 1
  assert len(set(texts)) == n


@pytest.mark.slow
def test_the_command_measures_all_stages_and_a_stage_that_fails_is_named(tmp_path):
  byte_bpe.train_bpe(['Wherever we may be, the words of a text are read.'], 270).save(tmp_path / 'bpe')
  command = [sys.executable, '-m', 'gptjax.benchmark', 'prepare', '--megabytes=0.1,0.2,0.3']
  flags = ['--source=python:', f'--tokenizer=bpe:{tmp_path / "bpe"}', '--tasks=2', f'--out={tmp_path}/a.json']
  run = lambda *flags: subprocess.run([*command, *flags], cwd=ROOT, env=ENVIRONMENT, capture_output=True,
                                      text=True, check=False)
  done = run(*flags)
  assert done.returncode in (0, 1), done.stderr
  found = json.loads((tmp_path / 'a.json').read_text())
  assert [row['stage'] for row in found['details']['stages']] == list(prepare.STAGES)
  assert [row['who'] for row in found['rows'][-2:]] == ['2 tasks', '2 workers']
  join = found['details']['costs'][-1]['join']
  assert join[2] > 20e6 and join[3] > 1e5  # a process that imports NumPy; a corpus
  failed = run('--source=python:', '--tokenizer=bpe:nowhere')
  last = failed.stderr.splitlines()[-1]
  assert failed.returncode == 2 and '--stage=judge' in last and 'failed: prepare: ' in last


def test_two_sizes_are_no_line():
  with pytest.raises((SystemExit, InputError)):
    prepare.main(['--source=python:', '--megabytes=1,2'])


def test_a_source_without_text_is_refused(tmp_path):
  (tmp_path / 'empty.jsonl').write_text('')
  with pytest.raises(InputError, match='has no text'):
    prepare.write_text(f'jsonl:{tmp_path}/empty.jsonl', '', 1, tmp_path / 'out.jsonl')
