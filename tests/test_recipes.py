"""The recipes run: each script from its text to its report, with a small text and model and a few steps."""

import re
import shlex
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.config import files

RECIPES = ROOT / 'launch' / 'recipes'
CONFIGS = {'openwebtext': 'gpt2_small', 'fineweb': 'gpt2_fineweb', 'books': 'gpt1',
           'wikitext103': 'gpt2_wikitext103'}
TINY = [f'--config.{field}={value}' for field, value in {
  'model.n_layer': 1, 'model.n_head': 2, 'model.n_embd': 16, 'model.n_ctx': 24, 'model.n_vocab': 290,
  'data.tokenizer': '', 'train.steps': 4, 'train.epochs': 0, 'train.batch_size': 8,
  'train.microbatch_size': 4, 'eval.every_steps': 2, 'eval.steps': 2, 'eval.batch_size': 4,
  'log.every_steps': 1, 'log.tensorboard': False}.items()]


def recipe(name, folder, *line, **variables):
  """Run a step of a recipe in a folder; returns its output."""
  return run(RECIPES / f'{name}.sh', *line, folder=folder, **variables)


def run(*line, folder, **variables):
  done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=280, env={
    **ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable, **variables})
  assert done.returncode == 0, done.stderr
  return done.stdout + done.stderr


def commands(name, step, folder):
  """The command line that a step of a recipe starts."""
  echo = folder / 'echo'
  echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
  echo.chmod(0o755)
  return recipe(name, folder, step, PYTHON=str(echo), HF=str(echo)).splitlines()


def test_every_script_has_its_config_here():
  assert {path.stem for path in RECIPES.glob('*.sh')} == CONFIGS.keys()


@pytest.mark.parametrize('name, config', CONFIGS.items())
def test_a_script_and_its_config_agree(name, config, tmp_path):
  """On the flags of the preparation, the corpus and the config; and each has its text."""
  data = files.load(config).data
  train = commands(name, 'train', tmp_path)
  assert train[:3] == ['-m', 'gptjax', 'pretrain'] and f'--config={config}' in train
  assert f'--config.data.corpus={data.corpus}' in train
  prepare = commands(name, 'prepare-text' if name == 'fineweb' else 'prepare', tmp_path)
  if name != 'books':  # whose config names the paper's text, which is not distributed any more
    assert {*prepare[3:]} == {*shlex.split(data.recipe), f'--out={data.corpus}'}
  assert commands(name, 'plan', tmp_path)[2] == 'plan' and commands(name, 'report', tmp_path)[2] == 'report'


@pytest.mark.parametrize('name', CONFIGS)
def test_what_a_script_downloads_is_pinned(name):
  text = (RECIPES / f'{name}.sh').read_text()
  assert all(re.match(r'[\w.-]+/[\w.-]+@[0-9a-f]{40}/', source) for source in text.split('hf://datasets/')[1:])
  assert 'download' not in text or 'hf://datasets/' in text


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('step', [(), ('cook',)])
def test_an_unknown_step_is_refused(name, step):
  done = subprocess.run([RECIPES / f'{name}.sh', *step], capture_output=True, text=True)
  assert done.returncode == 2 and done.stderr.startswith('usage: ')


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  """A folder with a small text in the form of each recipe, and a tokenizer of 290 entries."""
  folder = tmp_path_factory.mktemp('text')
  story = 'The blue stone never sings under the tree of rain . \n'
  (folder / 'books').mkdir()
  for i in range(30):
    (folder / 'books' / f'{i}.txt').write_text(f'Chapter {i}\n' + story * 40)
  (folder / 'parquet').mkdir()
  for split, n in (('train-00000-of-00002', 400), ('train-00001-of-00002', 400),
                   ('validation-00000-of-00001', 20), ('test-00000-of-00001', 20)):
    rows = pa.table({'text': ['', *[f'{i} {story}' * 3 for i in range(n)]]})  # data sets have empty rows
    pyarrow.parquet.write_table(rows, folder / 'parquet' / f'{split}.parquet')
  run(sys.executable, '-m', 'gptjax', 'tokenizer', 'train', '--kind=bpe', '--vocab_size=290',
      f'--source=text:{folder}/books/*.txt', f'--out={folder}/bpe', folder=ROOT)
  return folder


def prepare(name, text, folder):
  """Make the corpus of a recipe of the small text."""
  tokenizer, flags = f'bpe:{text}/bpe', ('--workers=1', '--validation_fraction=0.2')
  books, rows = f'text:{text}/books/*.txt', f'parquet:{text}/parquet/train-*.parquet'
  if name == 'openwebtext':
    recipe(name, folder, 'prepare', *flags, SOURCE=rows, TOKENIZER=tokenizer)
  elif name == 'books':
    recipe(name, folder, 'prepare', *flags, SOURCE=books, TOKENIZER=tokenizer)
  elif name == 'fineweb':
    recipe(name, folder, 'prepare-text', *flags, SOURCE=books, TOKENIZER=tokenizer, CORPUS='prepared')
    run(sys.executable, '-m', 'gptjax', 'export-tokens', '--from=prepared', '--to=llmc', '--out=shards',
        '--name=fineweb', folder=folder)
    recipe(name, folder, 'prepare', SHARDS='shards', TOKENIZER='prepared/tokenizer')
  else:
    recipe(name, folder, 'download', PARQUET=f'{text}/parquet')
    valid = pyarrow.parquet.read_table(text / 'parquet' / 'validation-00000-of-00001.parquet')['text']
    assert (folder / 'wikitext-103-raw' / 'wiki.valid.raw').read_text() == ''.join(valid.to_pylist())
    recipe(name, folder, 'prepare', '--seq_len=24', '--validation_fraction=0.2', TOKENIZER=tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_a_recipe_runs_from_its_text_to_its_report(name, text, tmp_path):
  prepare(name, text, tmp_path)
  recipe(name, tmp_path, 'train', *TINY)
  if name == 'openwebtext':
    assert 'training ended after step 4' in recipe(name, tmp_path, 'train', *TINY)
    assert 'report.html' in recipe(name, tmp_path, 'report')
  workdir = tmp_path / 'runs' / name
  assert 'Loss over tokens' in (workdir / 'report.md').read_text()
  if name == 'wikitext103':
    assert 'wiki.valid.raw' in recipe(name, tmp_path, 'score', '--stride=24')
