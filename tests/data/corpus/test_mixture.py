"""Several corpora in one run: opened together, shared out by weight, held out each by itself."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from conftest import tiny_config
from corpus_files import random_documents, write_corpus

from gptjax.config import files
from gptjax.config import resolve as configs
from gptjax.data import inspect
from gptjax.data.corpus import mixture, reader
from gptjax.data.prepare import prepare
from gptjax.pretrain import loop


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """Two corpora of one tokenizer; the second holds nothing out."""
  root = tmp_path_factory.mktemp('corpora')
  return [write_corpus(root / 'a', random_documents(0, 90), validation=random_documents(2, 9)),
          write_corpus(root / 'b', random_documents(1, 30))]


def test_one_corpus_is_itself(pair):
  one = mixture.open_mixture(pair[:1], [3.5], verify=True)
  assert one.weights == [1] and one.digest == one.train[0].digest == one.held_out[0].digest
  assert one.names == ['a'] and one.held_out[0].split == 'validation'


def test_the_digest_is_of_corpora_and_shares(pair, tmp_path):
  moved = shutil.copytree(pair[0], tmp_path / 'moved')
  def digest(folders, weights):
    return mixture.open_mixture(folders, weights, verify=False).digest
  assert digest(pair, [0.7, 0.3]) == digest(pair, [7, 3]) == digest([str(moved), pair[1]], [70, 30])
  assert len({digest(pair, [0.7, 0.3]), digest(pair, [0.6, 0.4]), digest(pair[::-1], [0.7, 0.3]),
              digest(pair[:1], [1]), digest(pair[1:], [1])}) == 5


def test_names_are_as_short_as_they_tell_apart(tmp_path):
  for folders, names in [(['x/web', 'x/books'], ['web', 'books']), (['p/c', 'q/c'], ['p/c', 'q/c']),
                         (['n', 'n/m'], ['n', 'n/m'])]:
    written = [write_corpus(tmp_path / folder, random_documents(0, 5)) for folder in folders]
    assert mixture.open_mixture(written, [1, 1], verify=False).names == names


def test_held_out_mean_is_over_those_that_hold_out(pair, tmp_path):
  third = write_corpus(tmp_path / 'c', random_documents(4, 9), validation=random_documents(5, 3))
  mixed = mixture.open_mixture([*pair, third], [3, 5, 1], verify=False)
  assert [bool(corpus) for corpus in mixed.held_out] == [True, False, True]
  assert mixed.held_out_mean([2.0, 6.0]) == pytest.approx((3 * 2 + 1 * 6) / 4)


def test_corpora_that_cannot_be_read_together_are_refused(pair, tmp_path):
  other = write_corpus(tmp_path / 'other', random_documents(0, 9), tokenizer_digest='a' * 64)
  for folders, weights, message in [
      ([pair[0], other], [1, 1], r'made with the tokenizer bpe \(digest aaaa.*need the same tokenizer'),
      ([pair[0], pair[0] + '/'], [1, 1], 'listed twice'), (pair, [1, 0], 'positive'),
      (pair, [1, -2], 'positive'), ([pair[0], '/nowhere'], [1, 1], 'does not exist')]:
    with pytest.raises(ValueError, match=message) as caught:
      mixture.open_mixture(folders, weights, verify=True)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('data, message', [
  ({'mixture': ('a', 0.7)}, 'must be pairs of folder and weight'),
  ({'mixture': (('a',), ('b', 1))}, 'must be pairs'), ({'mixture': (('a', 'b'),)}, 'must be pairs'),
  ({'mixture': (('a', 1),), 'corpus': 'c'}, "config.data.corpus = 'c' are both set"),
  ({'mixture': (('a', 1),), 'source': 'python:'}, "config.data.source = 'python:' are both set")])
def test_a_mixture_that_is_none_is_refused(data, message):
  with pytest.raises(ValueError) as caught:
    tiny_config(**{f'data.{name}': value for name, value in data.items()})
  assert message in str(caught.value) and '\n' not in str(caught.value)


def test_a_mixture_on_the_command_line_takes_the_place_of_the_files_corpus():
  """As the README has it, with a config that names a corpus."""
  both = (('/a', 0.3), ('/b', 0.7))
  config = files.load('gpt2_small.py')
  config.data.mixture = both
  with pytest.raises(ValueError, match='are both set'):
    configs.make_paths_absolute(config)
  configs.make_paths_absolute(config, {'data.mixture'})
  assert mixture.folders_and_weights(config.data) == (['/a', '/b'], [0.3, 0.7]) and not config.data.corpus
  config.data.corpus = 'c'
  with pytest.raises(ValueError, match='are both set'):
    configs.make_paths_absolute(config, {'data.mixture', 'data.corpus'})


def test_a_corpus_too_short_for_a_sequence_is_named(pair, tmp_path):
  short = write_corpus(tmp_path / 'short', [[1, 2, 3]])
  config = tiny_config(**{'model.n_vocab': 1000, 'data.mixture': ((pair[0], 1), (short, 1))})
  with pytest.raises(ValueError, match=r'short has 3 tokens to train on, fewer than the 25 that a'):
    folders, weights = mixture.folders_and_weights(config.data)
    mixture.check_compatible(mixture.open_mixture(folders, weights, verify=False), config)


@pytest.fixture(scope='module')
def trained(corpus_folder, tmp_path_factory):
  """A run on two corpora; (its workdir, their folders, what it said)."""
  root = tmp_path_factory.mktemp('mixed')
  (root / 'numbers.txt').write_text(''.join(f'{i} and {i * i}, {i % 7};\n' for i in range(900)))
  prepare([f'text:{root}/numbers.txt'], f'bpe:{corpus_folder}/tokenizer', str(root / 'numbers'),
          validation_fraction=0.1, clean='', workers=1, tfds_dir='', on_error='stop', progress=False,
          seq_len=24)
  folders = [str(corpus_folder), str(root / 'numbers')]
  return root / 'run', folders, run(root / 'run', folders, (0.75, 0.25))


def run(workdir, folders, weights):
  """Trains a tiny model for eight steps on corpora by weight; gives what it said."""
  config = tiny_config(**{
    'data.mixture': tuple(zip(folders, weights, strict=True)), 'model.n_vocab': 290, 'train.steps': 8,
    'eval.every_steps': 4, 'eval.ngrams': True, 'log.tensorboard': False})
  with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
    assert loop.pretrain(config, workdir) == 0
  return said.getvalue()


@pytest.mark.ci
def test_a_run_reports_the_mixture_and_each_corpus(trained):
  workdir, folders, said = trained
  records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  evaluated = [record for record in records if 'eval/loss' in record]
  assert [record['step'] for record in evaluated] == [4, 8]
  splits = [reader.open_corpus(folder, 'validation', verify=False) for folder in folders]
  bytes_per_token = np.dot([0.75, 0.25], [split.n_bytes / split.n_tokens for split in splits])
  for record in evaluated:
    losses = [value for name, value in record.items() if name.startswith('eval/loss/')]
    assert len(losses) == 2
    assert record['eval/loss'] == pytest.approx(0.75 * losses[0] + 0.25 * losses[1])
    assert record['eval/perplexity'] == pytest.approx(np.exp(record['eval/loss']))
    assert record['eval/bits_per_byte'] == pytest.approx(record['eval/loss'] / bytes_per_token / np.log(2))
  assert '75.00% of the sequences' in said and '25.00% of the sequences' in said
  for row in ('unigram', 'bigram', 'this model', '  of '):
    assert row in said
  assert 'checkpoints   ' in said and 'tensorboard' not in said  # log.tensorboard is off


@pytest.mark.ci
def test_inspect_shows_which_corpus_each_row_came_from(trained, capsys, tmp_path):
  workdir, folders, _ = trained
  inspect.main([f'--workdir={workdir}', '--step=5'])
  rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('row ')]
  opened = [reader.open_corpus(folder, 'train', verify=False) for folder in folders]
  which, window, *_ = reader.batch_windows(opened, [3, 1], 0, 5, 8, 24, True)
  assert sorted(which) == [0] * 6 + [1] * 2 and len(rows) == 8
  for i, row in enumerate(rows):
    assert row.startswith(f'row {i}: corpus {folders[which[i]]}, window {window[i]:,}, ')
  moved = shutil.copytree(folders[1], tmp_path / 'moved')
  inspect.main([folders[0], str(moved), f'--workdir={workdir}', '--step=5', '--row=0'])
  assert 'row 0: corpus ' in capsys.readouterr().out
  for argv, message in [([folders[0], f'--workdir={workdir}', '--step=5'], 'read 2 corpora, not 1'),
                        ([*folders[::-1], f'--workdir={workdir}', '--step=5'], 'is not what the run in'),
                        ([*folders, '--step=5'], 'are several corpora'),
                        ([f'--workdir={workdir}', '--document=0'], 'are several corpora')]:
    with pytest.raises(ValueError) as caught:
      inspect.main(argv)
    assert message in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.ci
def test_a_run_goes_on_with_the_same_mixture_alone(trained, tmp_path):
  workdir, folders, _ = trained
  for which, says in (((folders, (0.7, 0.3)), 'a mixture with other weights'),
                      ((folders[:1], (1,)), 'another corpus')):
    with pytest.raises(ValueError, match=says):
      run(workdir, *which)
  moved = [shutil.copytree(folder, tmp_path / f'moved{i}') for i, folder in enumerate(folders)]
  assert 'training ended after step 8' in run(workdir, list(map(str, moved)), (75, 25))


def test_an_epoch_is_as_long_as_one_over_all_corpora(pair):
  config = tiny_config(**{'model.n_vocab': 1000, 'train.steps': 0, 'train.epochs': 2.5, 'data.mixture':
                          tuple((folder, 1) for folder in pair)})
  both, one = (mixture.open_mixture(folders, [1] * len(folders), verify=False)
               for folders in (pair, pair[:1]))
  windows = [reader.n_windows(corpus, 24, True) for corpus in both.train]
  assert loop.n_steps(config, both) == -(-5 * sum(windows) // (2 * 8))
  assert loop.n_steps(config, one) == -(-5 * windows[0] // (2 * 8))
  config.train.steps = 3
  assert loop.n_steps(config, both) == 3


def test_fields_of_a_mixture_survive_the_workdir(pair, tmp_path):
  config = tiny_config(**{'model.n_vocab': 1000, 'data.mixture': ((pair[0], 0.5), (pair[1], 0.5))})
  configs.write_or_check_config(config, tmp_path, 'digest')
  configs.write_or_check_config(config, tmp_path, 'digest')
  stored = json.loads((tmp_path / 'config.json').read_text())['config']
  for data in (stored['data'], config.data):
    assert mixture.folders_and_weights(data) == (pair, [0.5, 0.5])
