"""A run on characters: the corpus determines the size of the vocabulary, also after a restart."""

import json
import subprocess

import pytest
from conftest import ENVIRONMENT, ROOT, command, train

from gptjax import pretrained
from gptjax.data.tokenizers import loading


@pytest.mark.ci
def test_a_run_takes_its_vocabulary_from_the_text_resumes_and_exports(tmp_path):
  text = 'To be, or not to be: that is the question.\n' * 60
  (tmp_path / 'a.txt').write_text(text)
  flags = [f'--config.data.source=text:{tmp_path}/a.txt', '--config.data.tokenizer=train-char',
           '--config.data.corpus=', '--config.checkpoint.export=True']
  entries = len(set(text)) + 1
  done = train('', tmp_path / 'run', *flags)  # with --config.model.n_vocab=290
  said = f'config.model.n_vocab = 290, but corpus {tmp_path}/run/corpus has {entries} entries'
  assert done.returncode == 2 and said in done.stderr
  absent = (f'{tmp_path}/run/corpus is not a complete corpus: it is prepared from data.source = '
            f'text:{tmp_path}/a.txt')
  assert absent in done.stderr
  for steps in 2, 4:
    line = command('', tmp_path / 'run', *flags, f'--config.train.steps={steps}')
    done = subprocess.run([flag for flag in line if 'model.n_vocab' not in flag], cwd=ROOT, env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f'config.model.n_vocab = {entries} (not 2048)' in done.stderr
    assert 'not a complete corpus' not in done.stderr
  assert json.loads((tmp_path / 'run/config.json').read_text())['config']['model']['n_vocab'] == entries
  made = loading.load(f'char:{tmp_path}/run/tokenizer')
  for folder in 'run', 'run/export':
    assert pretrained.open_source(tmp_path / folder).tokenizer.digest == made.digest
