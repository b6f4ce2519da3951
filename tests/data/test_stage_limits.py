"""What a task of the stages of `prepare` reads, sends and records does not grow with the corpus."""

import itertools
import os
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from object_storage import served as served_by
from prepared import contents, documents, make_texts, run, write_jsonl

from gptjax.command.parsers import prepare as parser
from gptjax.data import encode, workers
from gptjax.data.clean import webtext
from gptjax.data.corpus import local_shards, tree
from gptjax.data.ngrams import key_set, keys
from gptjax.data.sources import corpus, file_access, files, jsonl
from gptjax.data.sources import documents as sources
from gptjax.data.stages import excluded, join, match, parts, work
from gptjax.data.stages import run as stages
from gptjax.data.tokenizers import byte_bpe
from gptjax.errors import InputError
from gptjax.storage.files import buckets, paths

DUPLICATES = {'clean': 'webtext', 'clean_without': [
  name for name in webtext.FILTERS if name not in webtext.DUPLICATES]}


served = served_by(['gs'])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 9000)
  corpus._with_manifest.cache_clear()


@pytest.fixture
def tokenizer(tmp_path):
  byte_bpe.train_bpe(make_texts(20), 270).save(tmp_path / 'bpe')
  return f'bpe:{tmp_path}/bpe'


def test_a_task_verifies_what_it_reads_of_a_corpus_once(tmp_path, monkeypatch, tokenizer):
  run(write_jsonl(tmp_path / 'a.jsonl', make_texts(200)), tmp_path / 'c', tokenizer, validation_fraction=0,
      shard_tokens=4000)
  shards, source, verified = len(list((tmp_path / 'c').glob('train-0*.bin'))), f'corpus:{tmp_path}/c', []
  verify = local_shards._verify
  monkeypatch.setattr(local_shards, '_verify', lambda root, some, n: (
    verified.extend(file['file'] for _, file, *_ in some), verify(root, some, n)))
  options = {'tokenizer': tokenizer, 'validation_fraction': 0}
  run(source, tmp_path / 'd', stage='tokenizer', **options)
  assert verified == ['train-documents.bin'] and shards > 10
  read = {}
  for task in range(5):
    corpus._with_manifest.cache_clear()  # another process
    verified.clear()
    run(source, tmp_path / 'd', stage='encode', task=task, tasks=5, **options)
    assert len(set(verified)) == len(verified) <= 1 + shards // 5 + 2, verified
    read[task] = set(verified)
  assert len(set().union(*read.values())) == 1 + shards
  run(source, tmp_path / 'd', stage='join', **options)
  assert documents(tmp_path / 'd', 'train') == documents(tmp_path / 'c', 'train')

  damaged = min(read[3] - read[0])
  content = (tmp_path / 'c' / damaged).read_bytes()
  (tmp_path / 'c' / damaged).write_bytes(content[:-2] + b'\0\0')
  run(source, tmp_path / 'e', stage='tokenizer', **options)
  for task in range(5):
    corpus._with_manifest.cache_clear()
    if damaged in read[task]:
      with pytest.raises(InputError, match=f'{damaged} is damaged'):
        run(source, tmp_path / 'e', stage='encode', task=task, tasks=5, **options)
    else:
      run(source, tmp_path / 'e', stage='encode', task=task, tasks=5, **options)


def test_another_corpus_in_the_place_of_a_source_is_refused(tmp_path, tokenizer):
  for name, n in (('c', 20), ('d', 21)):
    run(write_jsonl(tmp_path / 'a.jsonl', make_texts(n)), tmp_path / name, tokenizer, validation_fraction=0)
  [unit] = sources.units([f'corpus:{tmp_path}/c'], '')
  (tmp_path / 'c').rename(tmp_path / 'old')
  (tmp_path / 'd').rename(tmp_path / 'c')
  with pytest.raises(InputError, match='was replaced by another one: run the same command again'):
    list(sources.pieces(unit, '', ''))


def test_the_sizes_of_parts_add_up_to_those_of_the_units(tmp_path):
  for name, n in (('a', 3), ('b', 400), ('c', 1), ('d', 60)):
    write_jsonl(tmp_path / f'{name}.jsonl', make_texts(n))
  units = sources.units([f'jsonl:{tmp_path}/*.jsonl'], '')
  own = SimpleNamespace(reading=SimpleNamespace(units=units), borders=parts.borders(units))
  sizes = parts.text_bytes(own)
  assert len(sizes) == len(own.borders) - 1 > 5
  assert sum(sizes) == pytest.approx(sum(map(sources.text_bytes, units)), rel=0.01)


@pytest.mark.parametrize('tail', [False, True])
def test_a_document_that_cannot_be_encoded_is_counted_once(tmp_path, monkeypatch, tokenizer, tail):
  monkeypatch.setattr(files, 'MAX_PIECE', 200)
  monkeypatch.setattr(stages.encode_part, 'BLOCK_CHARACTERS', 300)
  special = encode.special.encode
  monkeypatch.setattr(encode.special, 'encode', lambda tokenizer, names, text, first: (
    special(tokenizer, names, text, first) if 'BAD' not in text else (_ for _ in ()).throw(ValueError('no'))))
  texts = ['BAD and good. ' * 100, 'good ' * 300, 'BAD ' * 300, 'BAD', 'good']
  monkeypatch.setattr(stages.tokenizer.held_out, 'choose_rule', lambda *_: {
    'fraction': 0, 'tail': 0.3 if tail else 0, 'too_little': 0})
  made = run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'c', tokenizer, on_error='skip')
  assert made['skipped'] == {encode.ENCODE_FAILED: 3}
  lines = (tmp_path / 'c' / 'skipped.txt').read_text().splitlines()
  assert {line.split(':')[1] for line in lines} == {'1', '3', '4'}


@pytest.mark.slow
def test_signatures_in_a_bucket_are_not_read_one_by_one(tmp_path, monkeypatch, tokenizer, served):
  scheme, faults = served
  out = paths.location(f'{scheme}://buck/signatures')
  texts = [f'{text} {"and so it goes on " * 20}' for text in make_texts(150, longest=30)] * 2
  source = write_jsonl(tmp_path / 'a.jsonl', texts)
  options = {'tokenizer': tokenizer, 'clean': 'webtext', 'clean_without': webtext.FILTERS[:-1]}
  run(source, tmp_path / 'here', **options)
  for stage in ('judge', 'mark', 'tokenizer'):
    run(source, out, stage=stage, **options)
  before = len(faults.requests)
  run(source, out, stage='encode', **options)
  read = [path for _, path, _ in faults.requests[before:] if '.signatures' in path]
  n_parts = len({path for path in buckets.find(out) if path.endswith('.signatures')})
  assert 0 < len(read) <= 5 * n_parts < 150, (len(read), n_parts)
  run(source, out, **options)
  assert {name: buckets.read(out / name) for name in buckets.find(out)} == contents(tmp_path / 'here')


def test_the_keys_of_test_sets_are_not_sent_to_workers(tmp_path, tokenizer):
  tasks = []
  def keep(job, name, numbers):
    tasks.append(len(pickle.dumps(stages.Task(job, name))))
    task = pickle.loads(pickle.dumps(stages.Task(job, name)))
    for number in numbers:
      task(number)
  texts = make_texts(60)
  source, sizes = write_jsonl(tmp_path / 'a.jsonl', texts), []
  for n in (4, 55):
    test = write_jsonl(tmp_path / 't.jsonl', make_texts(n, seed=1))
    options = {'tokenizer': tokenizer, 'exclude': [test], **DUPLICATES}
    run(source, tmp_path / f'{n}', run_stage=keep, **options)
    sizes.append(max(tasks))
    run(source, tmp_path / f'{n}-here', **options)
    assert contents(tmp_path / f'{n}') == contents(tmp_path / f'{n}-here')
  assert sizes[1] < sizes[0] + 100, sizes


def test_the_lists_of_a_recipe_are_not_sent_to_workers(tmp_path, tokenizer):
  sizes = []
  def keep(job, name, numbers):
    sent = pickle.dumps(stages.Task(job, name))
    sizes.append(len(sent))
    for number in numbers:
      pickle.loads(sent)(number)
  texts = [f'Title {i}\n{text}' for i, text in enumerate(make_texts(60))]
  (tmp_path / 'titles.txt').write_text(''.join(f'Title {i}\n' for i in range(5, 3000)))
  options = {'clean': 'webtext', 'wikipedia_titles': f'{tmp_path}/titles.txt',
             'clean_without': [name for name in webtext.FILTERS if name != 'wikipedia']}
  source = write_jsonl(tmp_path / 'a.jsonl', texts)
  made = run(source, tmp_path / 'c', tokenizer, run_stage=keep, **options)
  assert made['skipped'] == {'webtext wikipedia': 55} and max(sizes) < 10_000
  run(source, tmp_path / 'd', tokenizer, **options)
  assert contents(tmp_path / 'c') == contents(tmp_path / 'd')


def test_a_source_that_changes_between_stages_is_an_error(tmp_path, tokenizer):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(30))
  content = (tmp_path / 'a.jsonl').read_text()
  more = content.replace('{"text": "', '{}\n{"text":"', 1)
  for number, other in enumerate((content.replace('\n', ' ', 3), more, ' ' * len(content))):
    (tmp_path / 'a.jsonl').write_text(content)
    out, options = tmp_path / f'{number}', {'on_error': 'skip', **DUPLICATES}
    for stage in ('judge', 'mark'):
      run(source, out, tokenizer, stage=stage, **options)
    (tmp_path / 'a.jsonl').write_text(other[:len(content)])
    with pytest.raises(InputError, match='has changed since this corpus was begun'):
      run(source, out, tokenizer, stage='tokenizer', **options)
      run(source, out, tokenizer, stage='encode', **options)


def test_damaged_keys_of_test_sets_are_an_error(tmp_path, tokenizer):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(30))
  test = write_jsonl(tmp_path / 't.jsonl', make_texts(30, seed=1))
  def damaged(job, name, numbers):
    path = job.work / 'excluded.keys'
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    pickle.loads(pickle.dumps(stages.Task(job, name)))(numbers[0])
  with pytest.raises(InputError, match=r'excluded.keys is damaged: remove .*work'):
    run(source, tmp_path / 'c', tokenizer, exclude=[test], run_stage=damaged)


def test_the_shared_words_of_a_long_document_take_linear_time():
  own = keys.ngram_keys(['one two three'], 3).keys
  every = excluded.Keys(key_set.KeySet.of(own), {'a': np.arange(len(own))})
  lines = []
  for n in (200, 800):
    piece, count = 'one two three, and more. ', 0
    def trace(frame, event, argument):
      nonlocal count
      if frame.f_code.co_filename == match.__file__:
        count += event == 'line'
        return trace
      return None
    matcher = match.Matcher(every, 3, True)
    matcher_pieces = [files.Piece(piece, '', b'', i * len(piece), n * len(piece)) for i in range(n)]
    sys.settrace(trace)
    try:
      for one in matcher_pieces:
        matcher.add(one)
        matcher._look_up()
      found = matcher.documents()
    finally:
      sys.settrace(None)
    assert len(matcher._spans[0]) == n and found == {0: []}
    lines.append(count)
  assert lines[1] < 4.2 * lines[0], lines


def test_blank_stretches_are_no_documents(tmp_path, monkeypatch, tokenizer):
  shared, rest = 'one two three four five six seven eight', 'x' * 250
  texts = [f'{shared}{" " * 300}{shared}\n{rest}', f'{shared}{" " * 300}', f'{" " * 300}{shared}{" " * 5000}',
           f'{rest} {shared} {"." * 200}{" " * 999}', *make_texts(20)]
  test = write_jsonl(tmp_path / 't.jsonl', [shared])
  for piece in (1 << 20, 70):
    monkeypatch.setattr(files, 'MAX_PIECE', piece)
    out = tmp_path / f'{piece}'
    made = run(write_jsonl(tmp_path / 'a.jsonl', texts), out, tokenizer, exclude=[test], exclude_spans=True,
               validation_fraction=0)
    assert documents(out, 'train') == [f'\n{rest}', f'{rest} ', f' {"." * 200}{" " * 999}', *texts[4:]]
    assert made['skipped'] == {'shares words with a test set': 2}


def test_the_record_of_the_largest_shard_can_be_read(tmp_path):
  with pytest.raises(InputError, match='shard_tokens'):
    parser.SHARD_SIZES.require('shard_tokens', 2**40 + 1)
  n = 2**40 // tree.BLOCK_TOKENS + 1
  record = {'file': 'train-00000.bin', 'leaves': join._packed([bytes([i % 256]) * 32 for i in range(n)])}
  work.write_record(tmp_path, 'a', record)
  assert work.read_record(tmp_path, 'a') == record


def test_a_line_that_is_too_long_is_not_read_beyond_its_part(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_DOCUMENT', 1000)
  monkeypatch.setattr(file_access, 'CHUNK', 500)
  path, n_read = tmp_path / 'a.jsonl', 0
  path.write_text('{"text": "a"}\n' + 'x' * 100_000 + '\n{"text": "b"}\n')
  size = path.stat().st_size
  class Counted(file_access._Raw):
    def readinto(self, buffer):
      nonlocal n_read
      n = super().readinto(buffer)
      n_read += n
      return n
  monkeypatch.setattr(file_access, '_Raw', Counted)
  found = []
  for first, end in itertools.pairwise([*range(0, size, 5000), None]):
    before = n_read
    found += jsonl.pieces(str(path), 'text', first, end)
    assert n_read - before < 5000 + 3000
  assert [(piece.text, piece.problem.partition(':')[0]) for piece in found] == [
    ('a', ''), ('', 'too long'), ('b', '')]


def process(payload):
  import time
  time.sleep(0.05)
  return os.getpid()


def make_process():
  return process


@pytest.mark.ci
def test_as_many_processes_work_as_a_stage_has_tasks():
  with workers.pool(make_process, (), 3) as map_items:
    assert len({found for _, found in map_items([(0, 0)])}) == 1
    assert len(stages.workers.multiprocessing.active_children()) == 1
    found = {found for _, found in map_items((i, i) for i in range(200))}
    assert len(found) == 3 and os.getpid() not in found
