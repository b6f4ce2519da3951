"""The overlap study against exact sets of strings; filters do not depend on how they were built."""

import itertools
import json
import os
import random
import re
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT
from hypothesis import strategies as st

from gptjax.data.sources import files
from gptjax.evaluate.overlap import __main__ as overlap_command
from gptjax.evaluate.overlap import bloom, build, eightgrams, study
from gptjax.evaluate.scoring import overlap_scores

few = hypothesis.settings(deadline=None, max_examples=40)
words = st.sampled_from(['a', 'B', 'the', 'Tree', '7', 'été', 'ΣΑΣ', 'İx', '日本', 'x_y', '½'])
sentences = st.lists(words, max_size=60).map(' '.join)


def brute(text):
  """The 8-grams of a text, by the definition."""
  found = re.findall(r'[^\W_]+', text.lower())
  return [' '.join(found[i:i + 8]) for i in range(len(found) - 7)]


def write(path, texts):
  path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
  return f'jsonl:{path}'


def filter_of(folder, *sources, **changes):
  settings = dict(rate=1e-8, capacity=0, workers=1, tfds_dir='', on_error='stop', separator='',
                  progress=False)
  return build.build_filter('some', list(sources), folder, **{**settings, **changes})


def reading(source):
  from gptjax.data import blocks
  from gptjax.data.sources import documents
  return blocks.ReadOptions(documents.units([source], ''), '', '', True, None)


@few
@hypothesis.given(st.lists(st.text(max_size=80) | sentences, max_size=8))
def test_a_key_stands_for_an_8_gram_of_lower_cased_alphanumeric_words(texts):
  found, expected = eightgrams.eightgram_keys(texts), [brute(text) for text in texts]
  assert found.text_indices.tolist() == [i for i, grams in enumerate(expected) for _ in grams]
  pairs = set(zip(itertools.chain(*expected), found.keys.tolist(), strict=True))
  assert len(pairs) == len({gram for gram, _ in pairs}) == len({key for _, key in pairs})


@pytest.mark.parametrize('between', ['\n' * (eightgrams.MAX_WORD_LENGTH + 5), '\n', ' - '])
def test_pieces_of_a_text_give_each_8_gram_once_however_long_what_is_between_its_words(between):
  words = [f'word{i}' for i in range(30)]
  text = between.join(words)
  for end in (text.index('word8'), text.index('word9') + 3, len(text)):
    head, carry = eightgrams.split_carry_over(text[:end])
    keys = np.concatenate([eightgrams.eightgram_keys([piece]).keys for piece in (head, carry + text[end:])])
    assert keys.tolist() == eightgrams.eightgram_keys([text]).keys.tolist()


def test_ascii_and_other_characters_have_the_same_keys():
  text = 'One two, three four-five SIX seven 8 nine'
  assert eightgrams.eightgram_keys([text]).keys.tolist() == eightgrams.eightgram_keys([text,
                                                                                       'été']).keys.tolist()


@few
@hypothesis.given(st.lists(sentences | st.text(alphabet='ab .\n', max_size=300), min_size=1, max_size=4))
def test_a_document_in_pieces_has_the_8_grams_of_the_whole(texts):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'MAX_PIECE', 40)
    found = [((0, 0, 0), piece, '') for text in texts for piece in files.document_pieces(text, '', {})
             if not piece.problem]
    patch.setattr(build.blocks, 'label_pieces', lambda *_: found)
    parts = [piece.text for _, piece, _ in build.texts(None, build.TextPosition())]
  assert sorted(gram for part in parts for gram in brute(part)) == sorted(
    gram for text in texts for gram in brute(text))


@few
@hypothesis.given(st.lists(sentences.filter(str.strip), min_size=1, max_size=6),
                  st.lists(sentences.filter(str.strip), min_size=1, max_size=6))
def test_overlap_equals_that_of_a_set_of_strings(tmp_path_factory, train, test):
  folder = tmp_path_factory.mktemp('exact')
  made = filter_of(folder, write(folder / 'train', train))
  found = study.source_overlap(reading(write(folder / 'test', test)), {'train': made})
  seen = {gram for text in train for gram in brute(text)}
  assert found.eightgrams.tolist() == [len(brute(text)) for text in test]
  assert found.in_filter['train'].tolist() == [sum(gram in seen for gram in brute(text)) for text in test]
  assert made.metadata['distinct'] == len(seen)


def test_overlap_of_wikitext_equals_that_of_a_set_of_strings(shared_data, tmp_path):
  folder = shared_data / 'text' / 'wikitext-2'
  seen = set(brute((folder / 'train.txt').read_text()))
  expected = sum(gram in seen for gram in brute((folder / 'test.txt').read_text()))
  found = study.source_overlap(reading(f'text:{folder}/test.txt'),
                            {'own': filter_of(tmp_path, f'text:{folder}/train.txt')})
  assert found.in_filter['own'].sum() == expected > 300


def invented(seed, n_words):
  """A random text whose 8-grams are all distinct."""
  draw = np.random.default_rng([seed, 1])
  letters = draw.integers(ord('a'), ord('z') + 1, (n_words, 6), dtype=np.uint8)
  letters[:, -1] = ord(' ')
  return letters.tobytes().decode()


@pytest.mark.parametrize('rate', [0.03, 1e-3])
def test_the_rate_of_false_positives_is_the_expected_one(tmp_path, rate):
  (tmp_path / 'train').write_text(invented(1, 400_007))
  made = filter_of(tmp_path, f'text:{tmp_path}/train', rate=rate)
  assert made.metadata['distinct'] == 400_000
  measured = bloom.measure_rate(made, 400_000)
  deviation = (rate / 400_000) ** 0.5
  assert made.metadata['expected'] <= rate
  assert abs(measured.found / measured.strings - made.metadata['expected']) < 4 * deviation
  assert measured.measured == pytest.approx(measured.found / measured.strings, rel=0.2)


def test_at_the_papers_rate_no_random_8_gram_is_found(tmp_path):
  (tmp_path / 'train').write_text(invented(1, 400_007))
  made = filter_of(tmp_path, f'text:{tmp_path}/train')
  measured = bloom.measure_rate(made, 1_000_000)
  assert made.shape.hashes == 27
  assert made.bits.size * 8 / 400_000 < 42
  assert measured.found == 0
  assert 1e-9 < measured.measured <= 1.1e-8


def content(made):
  return made.path.name, made.path.read_bytes()


def test_the_filter_does_not_depend_on_the_number_of_processes(tmp_path):
  source = write(tmp_path / 'train', [invented(i, 3000) for i in range(150)])
  one, two = (filter_of(tmp_path / str(n), source, workers=n) for n in (1, 2))
  assert content(one) == content(two)


def test_filters_of_parts_merge_into_the_filter_of_the_whole(tmp_path):
  texts = [invented(i, 4000) for i in range(12)]
  whole, *parts = (filter_of(tmp_path, write(tmp_path / f'{a}-{b}', texts[a:b]), capacity=48_000)
                   for a, b in ((0, 12), (0, 5), (5, 12)))
  bloom.merge(parts, tmp_path / 'merged', progress=False)
  merged = bloom.open_filter(tmp_path / 'merged', progress=False)
  assert np.array_equal(merged.bits, whole.bits)
  assert merged.metadata['expected'] == pytest.approx(whole.metadata['expected'])
  with pytest.raises(ValueError, match='different shapes'):
    bloom.merge([whole, filter_of(tmp_path, write(tmp_path / 'b', texts[:1]), rate=1e-3)], tmp_path / 'no')


def test_a_filter_that_is_too_full_raises_an_error(tmp_path):
  source = write(tmp_path / 'train', [invented(0, 60_000)])
  with pytest.raises(ValueError, match='--capacity=59993'):
    filter_of(tmp_path, source, capacity=10_000)
  assert not list(tmp_path.glob('*.bloom'))


def test_a_filter_is_built_once(tmp_path):
  source = write(tmp_path / 'train', [invented(0, 1000)])
  first = filter_of(tmp_path, source)
  before = first.path.stat().st_mtime_ns
  assert filter_of(tmp_path, source).path.stat().st_mtime_ns == before
  write(tmp_path / 'train', [invented(0, 1001)])
  assert filter_of(tmp_path, source).path != first.path


def test_any_damage_is_detected(tmp_path):
  made = filter_of(tmp_path, write(tmp_path / 'train', [invented(0, 1000)]))
  good = made.path.read_bytes()
  draw = random.Random(0)
  places = [0, made.bits.size, len(good) - 8, len(good) - 1, *(draw.randrange(len(good)) for _ in range(40))]
  for place in places:
    bad = bytearray(good)
    bad[place] ^= 1 << draw.randrange(8)
    made.path.write_bytes(bad)
    with pytest.raises(ValueError, match=r'damaged|changed|truncated|bytes of bits'):
      bloom.open_filter(made.path, progress=False)
  for length in (0, 5, made.bits.size, len(good) - 1):
    made.path.write_bytes(good[:length])
    with pytest.raises(ValueError, match='truncated'):
      bloom.open_filter(made.path, progress=False)


KILLED = '''
import hashlib, sys
from pathlib import Path
import killing
from gptjax.data import blocks
from gptjax.data.corpus import shards
from gptjax.evaluate.overlap import build
blocks.BLOCK_CHARACTERS, build.COMMIT_SECONDS, build.BUCKET_KEYS = 30_000, -1, 1 << 12
source, folder = sys.argv[1], Path(sys.argv[2])
def work(workers):
  build.build_filter('some', [source], folder, rate=1e-8, capacity=0, workers=workers, tfds_dir='',
                  on_error='stop', separator='', progress=False)
def state():
  done = list(folder.glob('*.bloom'))
  found = [shards.load_state(work) for work in folder.glob('*.work')]
  filled = found and found[0] and found[0]['filled']
  return ('complete' if done else f'drawer {filled["drawers"]}' if filled else
          'reading' if found and found[0] else 'nothing')
def made():
  return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
if __name__ == '__main__':
  killing.everywhere(work, folder, state, made, [0.2, 0.6])
'''


def test_a_build_killed_at_any_change_of_its_files_resumes_to_the_same_filter(tmp_path):
  source = write(tmp_path / 'train', [invented(i, 1000) for i in range(12)])
  (tmp_path / 'script.py').write_text(KILLED)
  done = subprocess.run(
    [sys.executable, tmp_path / 'script.py', source, tmp_path / 'made'], check=True, capture_output=True,
    text=True, env={**ENVIRONMENT, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])})
  _, *stages = lives = list(map(json.loads, done.stdout.splitlines()))
  drawers = [f'drawer {d}' for d in range(5)]
  assert {state for _, state, _ in stages} == {'nothing', 'reading', *drawers, 'complete'}, stages
  made = next(iter((tmp_path / 'made').glob('*.bloom')))
  for n, _, found in lives:
    assert found == lives[0][2] and list(found) == [made.name], n
  assert bloom.open_filter(made, progress=False).metadata['distinct'] > 11_000


def test_scores_by_overlap_add_up_and_show_contamination():
  draw = np.random.default_rng(0)
  shares = draw.choice([0.0, 0.1, 0.15, 0.2, 1.0], 500)
  examples = [{'text': '', 'nats': draw.exponential() / (1 + share), 'tokens': int(draw.integers(1, 9)),
               'correct': bool(share > draw.random())} for share in shares]
  every, *rows = overlap_scores.scores_by_overlap(shares, examples, (0, 0.15))
  assert [row['bucket'] for row in rows] == ['0%', '0% to 15%', 'over 15%']
  assert [row['examples'] for row in rows] == [(shares == 0).sum(), ((shares > 0) & (shares <= 0.15)).sum(),
                                               (shares > 0.15).sum()]
  assert every['correct'] == pytest.approx(sum(row['correct'] * row['examples'] for row in rows) / 500)
  mean = sum(one['nats'] for one in examples) / sum(one['tokens'] for one in examples)
  assert every['perplexity_a_token'] == pytest.approx(np.exp(mean))
  assert rows[0]['correct'] < rows[2]['correct']
  assert rows[0]['perplexity_a_token'] > rows[2]['perplexity_a_token']
  assert overlap_scores.scores_by_overlap(np.zeros(500), examples, (0, 0.15))[3]['correct'] is None


def command(*flags):
  run = [sys.executable, '-m', 'gptjax.evaluate.overlap', '--strings=100000', '--workers=1', *flags]
  return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


def test_the_command_reads_corpora_files_and_examples(tmp_path, corpus_folder):
  texts = [invented(i, 300) for i in range(10)]
  train, test = write(tmp_path / 'train', texts), write(tmp_path / 'test', [*texts[:4], invented(99, 300)])
  scored = [{'text': text, 'correct': i < 4} for i, text in enumerate([*texts[:4], invented(99, 300)])]
  (tmp_path / 'examples.jsonl').write_text(''.join(json.dumps(one) + '\n' for one in scored))
  flags = [f'--train={train}', f'--train={corpus_folder}', f'--test=mine={test}', f'--own=mine={train}',
           f'--test=held={corpus_folder}', f'--examples=scored={tmp_path}/examples.jsonl',
           f'--workdir={tmp_path}/run']
  ran = command(*flags)
  assert ran.returncode == 0, ran.stderr
  report = json.loads((tmp_path / 'run' / 'overlap.json').read_text())
  assert report['tests']['mine'] == {
    'documents': 5, 'eightgrams': 5 * 293, 'own': 0.8, 'train': 0.8, 'documents_with_any': 4,
    'documents_with_much': 4}
  assert report['tests']['held']['own'] is None and report['tests']['held']['eightgrams'] > 0
  assert [row['correct'] for row in report['by_overlap']['scored']] == [0.8, 0, None, 1]
  assert report['filters']['train']['measured'] <= 1e-8 and report['filters']['train']['found'] == 0
  rows = list(map(json.loads, (tmp_path / 'run' / 'overlap' / 'mine.jsonl').read_text().splitlines()))
  assert rows[0] == {'eightgrams': 293, 'own': 293, 'train': 293} and rows[4]['train'] == 0
  assert '80.00%' in ran.stdout and 'scored by overlap' in ran.stdout
  made = sorted((tmp_path / 'run' / 'overlap').glob('*.bloom'))
  again = command(*2 * [f'--filter={made[0]}'], f'--test=mine={test}', f'--workdir={tmp_path}/other')
  assert again.returncode == 0, again.stderr


@pytest.mark.parametrize('flags, says', [
  (['--test=a=text:nowhere', '--train=text:README.md'], 'no file has this name'),
  (['--test=text:README.md', '--train=text:README.md'], 'NAME=SOURCE'),
  (['--test=a=text:README.md'], '--train, --filter or --own'),
  (['--own=b=text:README.md'], 'no --test or --examples has this name'),
  (['--filter=README.md'], 'not a filter'),
  (['--train=text:README.md', '--rate=2'], r'--rate: 2 must be a number in \[1e-15, 0.5\]'),
  (['--train=text:gptjax/data/*.npy'], 'no file has this name'),
  (['--train=text:README.md', '--examples=a=README.md'], 'cannot be read'),
  (['--train=text:README.md', '--workdir=README.md/run'], 'not writable'),
])
def test_wrong_flags_raise_an_error_of_one_line(tmp_path, monkeypatch, flags, says):
  monkeypatch.chdir(ROOT)
  with pytest.raises(ValueError, match=says) as error:
    overlap_command.main([f'--workdir={tmp_path}', *flags])
  assert '\n' not in str(error.value)


def test_an_error_is_printed_as_one_line_with_an_exit_code(tmp_path):
  ran = command('--filter=README.md', f'--workdir={tmp_path}')
  assert ran.returncode == 2 and not ran.stdout
  assert len(ran.stderr.strip().split('\n')) == 1 and 'README.md' in ran.stderr


def test_a_corpus_of_gpt1s_tokens_has_all_8_grams_of_its_own_text(shared_data, tmp_path):
  import prepared
  text = ("He didn't say that it's gone, and they couldn't have known what's “there” – but I'm sure "
          'she cannot wait. ')
  texts = [text * 3, 'One two three four five six seven eight nine ten.']
  source = write(tmp_path / 'texts.jsonl', texts)
  prepared.run(source, tmp_path / 'corpus', f'gpt1:{shared_data / "bpe" / "gpt1"}', validation_fraction=0)
  made = filter_of(tmp_path / 'filters', f'corpus:{tmp_path / "corpus"}:train')
  whole = study.texts_overlap(texts, {'train': made})
  by_pieces = study.source_overlap(reading(source), {'train': made})
  for found in whole, by_pieces:
    assert found.share('train').tolist() == [1, 1] and found.looked_up['train'][0] > found.eightgrams[0]
    assert study.summary(found)['train'] == 1
  assert not study.texts_overlap(['quite another text of ten words that is not there'],
                                 {'train': made}).in_filter[
    'train'].any()
  with pytest.raises(ValueError, match="corpora of GPT-1's tokenizer, which changes words, and other text"):
    overlap_command.main([f'--workdir={tmp_path / "run"}', f'--train={tmp_path / "corpus"}',
                          f'--train={source}', f'--test=a={source}'])
