"""The overlap study against exact sets of strings; filters do not depend on how they were built."""

import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, slow_except
from hypothesis import strategies as st

from gptjax.data.ngrams import keys as ngram_keys
from gptjax.data.ngrams import windows
from gptjax.data.sources import documents, files
from gptjax.data.stages import parts
from gptjax.errors import InputError
from gptjax.evaluate.overlap import __main__ as overlap_command
from gptjax.evaluate.overlap import bloom, build, exact, lookup, table, training_text
from gptjax.evaluate.samples import store
from gptjax.evaluate.scoring import overlap_scores
from gptjax.report import files as report_files
from gptjax.report import tables
from gptjax.report.appendix import figure_5
from gptjax.storage.files import records

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
  return parts.ReadOptions(documents.units([source], ''), '', '', True)


def hits_of(folder, tests, *sources, workers=1):
  """The exact.Hits of the 8-grams of test sets in sources."""
  keys = lookup.keys_of([reading(test) for test in tests], [], sources)
  text = exact.make_text('some', list(sources), folder, keys, tfds_dir='', on_error='stop', separator='',
                         progress=False)
  return training_text.complete(text, workers)


@few
@hypothesis.given(st.lists(st.text(max_size=80) | sentences, max_size=8))
def test_a_key_stands_for_an_8_gram_of_lower_cased_alphanumeric_words(texts):
  found, expected = ngram_keys.ngram_keys(texts), [brute(text) for text in texts]
  assert found.text_indices.tolist() == [i for i, grams in enumerate(expected) for _ in grams]
  pairs = set(zip(itertools.chain(*expected), found.keys.tolist(), strict=True))
  assert len(pairs) == len({gram for gram, _ in pairs}) == len({key for _, key in pairs})


@pytest.mark.parametrize('between', ['\n' * (windows.MAX_WORD_LENGTH + 5), '\n', ' - '])
def test_pieces_of_a_text_give_each_8_gram_once_however_long_what_is_between_its_words(between):
  text = between.join(f'word{i}' for i in range(30))
  for end in (text.index('word8'), text.index('word9') + 3, len(text)):
    stream = windows.Windows(8)
    found = [stream.add(files.Piece(part, '', b'', start, len(text)))
             for start, part in ((0, text[:end]), (end, text[end:]))]
    assert len(found[1].text) < len(text) - end + 1000
    keys = np.concatenate([ngram_keys.ngram_keys([window.text]).keys for window in found])
    assert keys.tolist() == ngram_keys.ngram_keys([text]).keys.tolist()


def test_ascii_and_other_characters_have_the_same_keys():
  text = 'One two, three four-five SIX seven 8 nine'
  assert ngram_keys.ngram_keys([text]).keys.tolist() == ngram_keys.ngram_keys([text,
                                                                                       'été']).keys.tolist()


@few
@hypothesis.given(st.lists(sentences | st.text(alphabet='ab .\n', max_size=300), min_size=1, max_size=4))
def test_a_document_in_pieces_has_the_8_grams_of_the_whole(texts):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'MAX_PIECE', 40)
    stream = windows.Windows(8)
    found = [stream.add(piece).text for text in texts for piece in files.document_pieces(text, '', {})]
  assert [gram for part in found for gram in brute(part)] == [gram for text in texts for gram in brute(text)]


@few
@hypothesis.given(st.lists(sentences.filter(str.strip), min_size=1, max_size=6),
                  st.lists(sentences.filter(str.strip), min_size=1, max_size=6))
def test_overlap_equals_that_of_a_set_of_strings(tmp_path_factory, train, test):
  folder = tmp_path_factory.mktemp('exact')
  made = filter_of(folder, write(folder / 'train', train))
  found = lookup.source_overlap(reading(write(folder / 'test', test)), {'train': made})
  seen = {gram for text in train for gram in brute(text)}
  assert found.eightgrams.tolist() == [len(brute(text)) for text in test]
  assert found.in_filter['train'].tolist() == [sum(gram in seen for gram in brute(text)) for text in test]
  assert made.metadata['distinct'] == len(seen)
  hits = hits_of(folder, [f'jsonl:{folder}/test'], f'jsonl:{folder}/train')
  again = lookup.source_overlap(reading(f'jsonl:{folder}/test'), {'train': hits})
  assert again.in_filter['train'].tolist() == found.in_filter['train'].tolist()
  assert hits.metadata['found'] == len(seen & {gram for text in test for gram in brute(text)})
  assert hits.metadata['eightgrams'] == made.metadata['eightgrams'] == sum(len(brute(text)) for text in train)


def test_a_test_set_that_changed_since_the_training_text_was_read_is_refused(tmp_path):
  texts = [' '.join(f'w{i}' for i in range(start, start + 9)) for start in (0, 50)]
  train = write(tmp_path / 'train', texts)
  hits = hits_of(tmp_path, [write(tmp_path / 'test', texts[:1])], train)
  assert lookup.texts_overlap(texts[:1], {'train': hits}).in_filter['train'].tolist() == [2]
  with pytest.raises(InputError, match=r'^2 8-grams of a test set .*: the test set changed; run .* again$'):
    lookup.texts_overlap(texts, {'train': hits})


def test_overlap_of_wikitext_equals_that_of_a_set_of_strings(shared_data, tmp_path):
  folder = shared_data / 'text' / 'wikitext-2'
  seen = set(brute((folder / 'train.txt').read_text()))
  expected = sum(gram in seen for gram in brute((folder / 'test.txt').read_text()))
  found = lookup.source_overlap(reading(f'text:{folder}/test.txt'),
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


def test_the_filter_does_not_depend_on_how_the_work_is_divided(tmp_path, monkeypatch):
  source = write(tmp_path / 'train', [invented(i % 40, 3000) for i in range(50)])
  whole = filter_of(tmp_path / 'whole', source)
  assert whole.metadata['distinct'] == 40 * 2993 and whole.shape.parts > 3
  for part_bytes, run_keys, range_keys in ((1 << 14, 1 << 30, 1 << 16), (1 << 23, 5000, 30_000),
                                           (1 << 10, 1, 1)):
    monkeypatch.setattr(parts, 'MIN_BYTES', part_bytes)
    monkeypatch.setattr(build, 'RUN_KEYS', run_keys)
    monkeypatch.setattr(build, 'RANGE_KEYS', range_keys)
    monkeypatch.setattr(training_text, 'BLOCK_CHARACTERS', 1 << 15)
    made = filter_of(tmp_path / f'{part_bytes}', source)
    assert np.array_equal(made.bits, whole.bits)
    same = ('documents', 'eightgrams', 'distinct', 'parts', 'capacity')
    assert {name: made.metadata[name] for name in same} == {name: whole.metadata[name] for name in same}


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
from gptjax.data.stages import parts, work
from gptjax.evaluate.overlap import build, exact, lookup, training_text
parts.MIN_BYTES, build.RANGE_KEYS = 30_000, 1 << 12
source, folder, method = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
options = dict(tfds_dir='', on_error='stop', separator='', progress=False)
def make(workers):
  if method == 'bloom':
    build.build_filter('some', [source], folder, rate=1e-8, capacity=80_000, workers=workers, **options)
  else:
    keys = lookup.key_set.KeySet.of(lookup.np.arange(1000, dtype='u8') << lookup.np.uint64(54))
    training_text.complete(exact.make_text('some', [source], folder, keys, **options), workers)
def state():
  if list(folder.glob(f'*{exact.METHOD.suffix}')) + list(folder.glob('*.bloom')):
    return 'complete'
  return [sum(len(work.complete(stage)) for stage in folder.glob(f'*.work/{name}'))
          for name in ('read', 'fill')]
def made():
  return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
if __name__ == '__main__':
  killing.everywhere(make, folder, state, made, [0.2, 0.6])
'''


@pytest.mark.ci
@pytest.mark.parametrize('method', slow_except(['bloom', 'exact'], 'bloom'))
def test_a_study_killed_at_any_change_of_its_files_goes_on_to_the_same_result(tmp_path, method):
  source = write(tmp_path / 'train', [invented(i, 1000) for i in range(12)])
  (tmp_path / 'script.py').write_text(KILLED)
  done = subprocess.run(
    [sys.executable, tmp_path / 'script.py', source, tmp_path / 'made', method], capture_output=True,
    text=True, env={**ENVIRONMENT, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])})
  assert not done.returncode, done.stderr
  _, *stages = lives = list(map(json.loads, done.stdout.splitlines()))
  states = {str(state) for _, state, _ in stages}
  assert {'[0, 0]', '[1, 0]', '[2, 0]', 'complete'} <= states, states
  assert method == 'exact' or {'[2, 1]', '[2, 2]', '[2, 3]'} <= states, states
  for n, _, found in lives:
    assert found == lives[0][2] and len(found) == 1, n
  if method == 'bloom':
    made = next(iter((tmp_path / 'made').glob('*.bloom')))
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


@pytest.mark.ci
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


def study(folder, *flags):
  """The report of a study in this process, and the rows of its test sets."""
  overlap_command.main([f'--workdir={folder}', '--strings=1000', '--workers=1', *flags])
  if not (folder / 'overlap.json').exists():
    return None
  rows = {path.name: path.read_text() for path in (folder / 'overlap').glob('*.jsonl')}
  return {**records.read(folder / 'overlap.json'), 'rows': rows}


def quoting(folder):
  """Flags of a study: training texts with quotations of two test sets, a corpus, and examples."""
  draw = random.Random(5)
  tests = [[invented(100 * which + i, draw.randint(5, 80)) for i in range(30)] for which in (1, 2)]
  quote = lambda: ' '.join(draw.choice(draw.choice(tests)).split()[draw.randrange(5):])
  train = [f'{invented(i, 300)} {quote().upper()} - {invented(1000 + i, 40)}' for i in range(60)]
  sources = {name: write(folder / f'{name}.jsonl', texts) for name, texts in (
    ('train', train), ('own', train[:7]), ('a', tests[0]), ('b', [*tests[1], '\u0130x \u03a3']))}
  (folder / 'examples.jsonl').write_text(''.join(
    json.dumps({'text': text, 'correct': True}) + '\n' for text in (*train[:3], *tests[1])))
  return [f'--train={sources["train"]}', f'--own=a={sources["own"]}', f'--test=a={sources["a"]}',
          f'--test=b={sources["b"]}', f'--examples=c={folder}/examples.jsonl'], train, tests


def test_both_methods_find_the_same_and_any_tasks_do(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(parts, 'MIN_BYTES', 9000)
  monkeypatch.setattr(build, 'RANGE_KEYS', 3000)
  flags, train, tests = quoting(tmp_path)
  bloom_report = study(tmp_path / 'bloom', *flags)
  assert 'method: bloom' in capsys.readouterr().out
  report = study(tmp_path / 'exact', *flags, '--method=exact')
  assert 'method: exact' in capsys.readouterr().out
  assert bloom_report['method'] == 'bloom' and report['method'] == 'exact'
  for name in ('tests', 'by_overlap', 'rows'):
    assert report[name] == bloom_report[name]
  seen = {gram for text in train for gram in brute(text)}
  assert [json.loads(line)['train'] for line in report['rows']['a.jsonl'].splitlines()] == [
    sum(gram in seen for gram in brute(text)) for text in tests[0]]
  assert 0 < report['tests']['a']['own'] < report['tests']['a']['train'] < 1
  for folder, one in (('bloom', bloom_report), ('exact', report)):
    shown = report_files.read(tmp_path / folder / 'overlap.json', report_files.OVERLAP, None)
    blocks = list(tables.overlaps(SimpleNamespace(overlap=shown, name='mine')))
    assert f'method: {folder}.' in str(blocks[0]) and '8-grams in the training corpus' in str(blocks[-1])
    assert ('distinct 8-grams of the test sets are among' in str(blocks)) == (folder == 'exact')
    assert one['by_overlap'].keys() == {'c'}
  assert report['exact']['train']['eightgrams'] == bloom_report['filters']['train']['eightgrams']
  for method, stages in (('exact', ('read',)), ('bloom', ('read', 'fill'))):
    for tasks in (1, 3, 40):
      folder = tmp_path / f'{method}{tasks}'
      for stage in stages:
        order = [*range(tasks), 0]
        random.Random(tasks).shuffle(order)
        for task in order:
          assert study(folder, *flags, f'--method={method}', f'--stage={stage}', f'--task={task}',
                       f'--tasks={tasks}') is None
      assert study(folder, *flags, f'--method={method}', '--stage=report', f'--tasks={tasks}') == {
        'exact': report, 'bloom': {**bloom_report, 'filters': {
          name: {**row, 'file': row['file'].replace(str(tmp_path / 'bloom'), str(folder))}
          for name, row in bloom_report['filters'].items()}}}[method]
      assert not list(folder.rglob('*.work'))


def test_a_stage_of_a_study_needs_those_before_it(tmp_path, monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 9000)
  flags, *_ = quoting(tmp_path)
  for method in ('exact', 'bloom'):
    run = lambda *more, method=method: study(tmp_path / method, *flags, f'--method={method}', *more)
    run('--stage=read', '--tasks=2', '--task=1')
    with pytest.raises(InputError, match=r'--stage=read is not complete, \d+ of \d+ results are missing'):
      run('--stage=report')
    run('--stage=read', '--tasks=2')
    if method == 'bloom':
      with pytest.raises(InputError, match=r'--stage=fill is not complete'):
        run('--stage=report')
    else:
      with pytest.raises(InputError, match=r'--stage=fill: this method has no such stage, only read and rep'):
        run('--stage=fill')
    run()  # goes on with what is there


@pytest.mark.parametrize('damage', ['lost', 'cut short', 'changed'])
def test_damaged_bits_are_an_error_that_says_what_to_do(tmp_path, damage):
  """And not a filter that has forgotten 8-grams."""
  flags, *_ = quoting(tmp_path)
  run = lambda *more: study(tmp_path / 'c', *flags, '--method=bloom', *more)
  for stage in ('read', 'fill'):
    run(f'--stage={stage}')
  path = max((tmp_path / 'c').rglob('bits'))
  bits = path.read_bytes()
  at = max(i for i, byte in enumerate(bits) if byte)
  if damage == 'lost':
    path.unlink()
  else:
    path.write_bytes(bits[:at] if damage == 'cut short' else bits[:at] + b'\0' + bits[at + 1:])
  with pytest.raises(InputError, match=rf'{path} is damaged: remove {path.parent}/fill, and'):
    run('--stage=report')
  shutil.rmtree(path.parent / 'fill')
  run('--stage=fill')
  assert run('--stage=report')['rows'] == study(tmp_path / 'one', *flags, '--method=bloom')['rows']


def test_one_process_at_a_time_finishes_a_filter(tmp_path, monkeypatch):
  flags, *_ = quoting(tmp_path)
  run = lambda *more: study(tmp_path / 'c', *flags, '--method=bloom', *more)
  for stage in ('read', 'fill'):
    run(f'--stage={stage}')
  finish = bloom.finish
  def finished(path, *arguments):
    with pytest.raises(InputError, match='is in use'):
      run('--stage=report')
    text = next(text for text in texts if text.work == path.parent)
    build.METHOD.stages['fill'][1](text, 0)  # a task that is run again
    finish(path, *arguments)
    size = os.path.getsize(arguments[0])
    build.METHOD.stages['fill'][1](text, 0)
    assert os.path.getsize(arguments[0]) == size
  texts = []
  monkeypatch.setattr(bloom, 'finish', finished)
  made = training_text.finished
  monkeypatch.setattr(training_text, 'finished', lambda text: [texts.append(text), made(text)][1])
  report = run('--stage=report')
  monkeypatch.undo()
  assert report['rows'] == study(tmp_path / 'one', *flags, '--method=bloom')['rows']


@pytest.mark.parametrize('method', ['exact', 'bloom'])
def test_a_task_that_ends_when_the_study_is_complete_leaves_nothing_behind(tmp_path, monkeypatch, method):
  flags, *_ = quoting(tmp_path)
  run = lambda *more: study(tmp_path / 'c', *flags, f'--method={method}', *more)
  for stage in ['read', 'fill'][:1 + (method == 'bloom')]:
    run_stage = training_text._run
    def late(*arguments, run_stage=run_stage):
      monkeypatch.setattr(training_text, '_run', run_stage)
      run()
      run_stage(*arguments)
    monkeypatch.setattr(training_text, '_run', late)
    run(f'--stage={stage}')
    assert not list((tmp_path / 'c').rglob('*.work'))
    for path in (tmp_path / 'c' / 'overlap').iterdir():
      path.unlink()
    run('--stage=read')


def test_results_of_another_division_are_not_used(tmp_path, monkeypatch):
  flags, *_ = quoting(tmp_path)
  run = lambda *more: study(tmp_path / 'c', *flags, '--method=exact', *more)
  monkeypatch.setattr(parts, 'MIN_BYTES', 9000)
  run('--stage=read', '--tasks=2')
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  run('--stage=read', '--tasks=2', '--task=1')
  with pytest.raises(InputError, match='--stage=read is not complete'):
    run('--stage=report')
  run('--stage=read')
  assert run('--stage=report')['rows'] == study(tmp_path / 'one', *flags, '--method=exact')['rows']
  assert not list((tmp_path / 'c').rglob('*.work'))


def test_exact_results_are_reused_and_checked(tmp_path):
  train = write(tmp_path / 'train', [invented(0, 1000)])
  test = write(tmp_path / 'test', [invented(0, 20), 'short', ''.join(['a '] * 3)])
  first = hits_of(tmp_path / 'made', [test], train)
  assert first.metadata['found'] == first.metadata['keys'] == 13
  (path,) = (tmp_path / 'made').glob('*')
  before = path.stat().st_mtime_ns
  hits_of(tmp_path / 'made', [test], train)
  assert path.stat().st_mtime_ns == before
  good = path.read_text()
  for bad in (good[:-9], good.replace('"found": 13', '"found": 12'), '{}'):
    path.write_text(bad)
    with pytest.raises(InputError, match=r'\.hits is damaged: remove it'):
      hits_of(tmp_path / 'made', [test], train)
  path.write_text(good)
  write(tmp_path / 'test', [invented(0, 21)])
  assert hits_of(tmp_path / 'made', [test], train).metadata['found'] == 14
  assert len(list((tmp_path / 'made').glob('*'))) == 2
  write(tmp_path / 'test', ['no eight words'])
  assert hits_of(tmp_path / 'made', [test], train).metadata['keys'] == 0
  (tmp_path / 'test').write_text('')
  found = lookup.source_overlap(reading(test), {'train': hits_of(tmp_path / 'made', [test], train)})
  assert table.summary(found)['train'] == 0 and not len(found.eightgrams)


def test_a_corpus_is_read_in_parts(tmp_path, monkeypatch):
  import prepared
  texts = [invented(i, 60 + i) for i in range(300)]
  prepared.run(write(tmp_path / 'texts', texts), tmp_path / 'c', validation_fraction=0)
  (unit,) = documents.units([f'corpus:{tmp_path}/c'], '')
  whole = list(documents.pieces(unit, '', ''))
  assert [piece.text for piece in whole] == texts
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  borders = parts.borders([unit])
  assert len(borders) > 5
  assert [piece for number in range(len(borders) - 1) for _, first, end in parts.spans(borders, number)
          for piece in documents.pieces(unit, '', '', first, end)] == whole


@pytest.mark.parametrize('flags, says', [
  (['--test=a=text:nowhere', '--train=text:README.md'], 'no file has this name'),
  (['--test=text:README.md', '--train=text:README.md'], 'NAME=SOURCE'),
  (['--test=a=text:README.md'], '--train, --filter or --own'),
  (['--own=b=text:README.md'], 'no --test or --examples has this name'),
  (['--filter=README.md'], 'not a filter'),
  (['--train=text:README.md', '--rate=2'], r'--rate: 2 must be a number in \[1e-15, 0.5\]'),
  (['--train=text:gptjax/data/*.npy'], 'no file has this name'),
  (['--train=text:README.md', '--examples=a=README.md'], 'cannot be read'),
  (['--train=text:README.md', '--method=exact', '--capacity=9'], '--filter and --capacity are of filters'),
  (['--train=text:README.md', '--tasks=2'], 'are shares of one stage: give'),
  (['--train=text:README.md', '--stage=read', '--task=2', '--tasks=2'], 'numbered from 0'),
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
  whole = lookup.texts_overlap(texts, {'train': made})
  by_pieces = lookup.source_overlap(reading(source), {'train': made})
  for found in whole, by_pieces:
    assert found.share('train').tolist() == [1, 1] and found.looked_up['train'][0] > found.eightgrams[0]
    assert table.summary(found)['train'] == 1
  assert not lookup.texts_overlap(['quite another text of ten words that is not there'],
                                 {'train': made}).in_filter[
    'train'].any()
  with pytest.raises(ValueError, match="corpora of GPT-1's tokenizer, which changes words, and other text"):
    overlap_command.main([f'--workdir={tmp_path / "run"}', f'--train={tmp_path / "corpus"}',
                          f'--train={source}', f'--test=a={source}'])


def write_samples(path, pairs):
  """A file of `gptjax samples contexts` with (text, real continuation), two samples for each context."""
  with store.appending(path, []) as append:
    append({'weights': 'w', 'ids': [f'{i}' for i in range(len(pairs))]})
    for i, (text, real) in enumerate(pairs):
      append(store.Sample(f'{i}', 'w', f'{i // 2}', 'title', 'prompt', text, real, 1, 1, 1, 'length',
                          1 + i % 2, 1.0, 40, 0, -1.0)._asdict())


@pytest.mark.parametrize('method', ['bloom', 'exact'])
def test_figure_5_is_the_distribution_of_the_overlap_of_samples_and_of_real_text(tmp_path, method):
  """Against sets of strings; a sample too short for an 8-gram does not count."""
  train = [invented(i, 300) for i in range(5)]
  quote = lambda i, n: ' '.join(train[i % 5].split()[i:i + n]) + ' ' + invented(500 + i, 20)
  pairs = [(quote(i, (0, 9, 30)[i % 3]), quote(50 + i // 2, 8 + i // 2)) for i in range(20)]
  pairs += [('a b c', '')] * 2
  write_samples(tmp_path / 'contexts.jsonl', pairs)
  report = study(tmp_path / 'run', f'--train={write(tmp_path / "train", train)}', f'--method={method}',
                 f'--samples=mine={tmp_path}/contexts.jsonl',
                 f'--test=whole={write(tmp_path / "test", train[:2])}')
  seen = {gram for text in train for gram in brute(text)}
  share = lambda text: np.mean([gram in seen for gram in brute(text)])
  expected = {'mine': [share(text) for text, _ in pairs[:20]],
              'mine-real': [share(real) for _, real in pairs[:20:2]], 'whole': [1.0, 1.0]}
  assert report['cdf'].keys() == expected.keys() and report['tests'].keys() == expected.keys()
  for name, shares in expected.items():
    row = report['cdf'][name]
    assert row['shares'] == pytest.approx(sorted(shares)) and row['documents'] == len(shares)
    assert row['none'] == pytest.approx(np.mean(np.array(shares) == 0))
    assert row['below_1_percent'] == pytest.approx(np.mean(np.array(shares) < 0.01))
    assert row['median'] == pytest.approx(np.median(shares))
  assert report['cdf']['mine']['short'] == 2 and 0 < report['cdf']['mine']['none'] < 1
  run = SimpleNamespace(name='run', overlap=report_files.read(tmp_path / 'run' / 'overlap.json',
                                                              report_files.OVERLAP, {}))
  figure, shown = figure_5.blocks(run, 'run')
  assert 'mine-real' in figure.svg and [row[0] for row in shown.rows[:3]] == list(expected)
  assert shown.rows[0][2] == f'{100 * report["cdf"]["mine"]["none"]:.1f}' and shown.rows[-1][-1] == '2.6'


@few
@hypothesis.given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 12))
def test_a_distribution_has_the_quantiles_of_all_shares(found, most):
  counts = np.array(found)
  test = lookup.Overlap(np.full(len(found), 40), {'train': counts}, {'train': np.full(len(found), 40)})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(table, 'MAX_SHARES', most)
    row = table.distribution(test, 'train')
  ordered, n = sorted(counts / 40), len(found)
  assert len(row['shares']) == min(n, most) and row['shares'][-1] == ordered[-1]
  for i, value in enumerate(row['shares'], 1):
    assert value == ordered[math.ceil(i * n / min(n, most)) - 1]


@pytest.mark.parametrize('flags, says', [
  (['--samples=a=nowhere.jsonl', '--train=python:'], 'there are no samples of `gptjax samples`'),
  (['--samples=FILE'], 'must be NAME=SOURCE'), (['--samples=a=FILE', '--own=b=python:', '--test=b=python:'],
                                                '--samples is compared with the training corpus')])
def test_samples_without_a_file_a_name_or_a_corpus_are_refused(tmp_path, flags, says):
  write_samples(tmp_path / 'contexts.jsonl', [('a', 'b')])
  with pytest.raises(InputError, match=says):
    overlap_command.main([f'--workdir={tmp_path}/run', *(
      flag.replace('FILE', f'{tmp_path}/contexts.jsonl') for flag in flags)])
