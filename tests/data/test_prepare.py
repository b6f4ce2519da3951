"""A corpus is what its sources say, byte for byte, however often its making was killed."""

import errno
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import hypothesis
import numpy as np
import pytest
from conftest import SHARED
from hypothesis import strategies as st

from gptjax.data import blocks, corpus, encode, files, progress, shards, sources, tokenizers
from gptjax.data import command as command_module
from gptjax.data import prepare as prepare_module
from gptjax.data.prepare import prepare

WORDS = ('the', 'of', 'and', 'river', 'stone', 'walk', 'light', 'house', 'morning', 'yellow')


def make_texts(n, seed=0, longest=400):
  rng = random.Random(seed)
  return [' '.join(rng.choices(WORDS, k=rng.randint(1, longest))) + f' {i}.\n' for i in range(n)]


def write_jsonl(path, texts):
  path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
  return f'jsonl:{path}'


def run(source, out, tokenizer='train-bpe:300', **options):
  options = {'validation_fraction': 0.1, 'clean': '', 'workers': 1, 'tfds_dir': '',
             'on_error': 'stop', 'progress': False, **options}
  sources = [source] if isinstance(source, str) else source
  return prepare(sources, tokenizer, str(out), **options)


def contents(folder):
  """{name: bytes} of all files, hidden ones apart."""
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*'))
          if path.is_file() and not path.name.startswith('.')}


def documents(folder, split):
  """The texts of a split, as its tokenizer decodes them, checked against the manifest."""
  opened = corpus.open_corpus(str(folder), split, verify=True)
  tokenizer = tokenizers.load(str(folder / 'tokenizer'))
  ends = [*opened.document_starts[1:], opened.n_tokens]
  found = []
  for start, end in zip(opened.document_starts, ends, strict=True):
    ids = opened.tokens(int(start), int(end))
    assert ids[-1] == tokenizer.end_of_text and tokenizer.end_of_text not in ids[:-1]
    found.append(tokenizer.decode(ids[:-1]))
  assert sum(len(text.encode()) for text in found) == opened.n_bytes
  return found


def test_documents_come_back_in_their_order(tmp_path):
  texts = make_texts(300)
  manifest = run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'out', shard_tokens=5000)
  train, held = (documents(tmp_path / 'out', split) for split in encode.SPLITS)
  kept = iter(texts)
  assert sorted(train + held) == sorted(texts) and 10 < len(held) < 60
  assert all(text in kept for text in train)  # A subsequence: in order.
  sizes = [shard['tokens'] for shard in manifest['splits']['train']['shards']]
  assert len(sizes) > 3 and set(sizes[:-1]) == {5000} and 0 < sizes[-1] <= 5000
  assert set(contents(tmp_path / 'out')) == {
    'manifest.json', 'tokenizer/encoder.json', 'tokenizer/vocab.bpe', 'train-documents.bin',
    'validation-documents.bin', *(s['file'] for entry in manifest['splits'].values()
                                  for s in entry['shards'])}


def test_other_shards_and_another_place_give_the_same_batches(tmp_path):
  texts, opened = make_texts(200), []
  for size in (700, 5000, 10**8):
    (tmp_path / f'in{size}').mkdir()
    source = write_jsonl(tmp_path / f'in{size}' / 'a.jsonl', texts)
    manifest = run(source, tmp_path / f'out{size}', shard_tokens=size, workers=1 + size % 3)
    opened.append(corpus.open_corpus(str(tmp_path / f'out{size}'), 'train', verify=True))
    stream = b''.join((tmp_path / f'out{size}' / shard['file']).read_bytes()
                      for shard in manifest['splits']['train']['shards'])
    assert hashlib.sha256(stream).hexdigest() == manifest['splits']['train']['sha256']
  assert len({c.digest for c in opened}) == 1 and len({len(c.shards) for c in opened}) == 3
  batches = [corpus.batch([c], [1], 5, 7, 16, 33, False) for c in opened]
  for name in ('inputs', 'targets'):
    assert all((batch[name] == batches[0][name]).all() for batch in batches)


def test_validation_is_by_text_alone(tmp_path):
  """Copies of a document, in any order, fall into the same split."""
  texts = make_texts(200)
  run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'a')
  mixed = texts * 2
  random.Random(5).shuffle(mixed)
  run(write_jsonl(tmp_path / 'b.jsonl', mixed), tmp_path / 'b', workers=2)
  for split in encode.SPLITS:
    assert sorted(documents(tmp_path / 'a', split) * 2) == sorted(documents(tmp_path / 'b', split))


@pytest.mark.parametrize('text', [
  'A line of some length.\n' * 200, 'words without an end of line ' * 150, 'x' * 5000])
def test_one_file_gives_its_end_to_validation(tmp_path, text):
  (tmp_path / 'a.txt').write_text(text)
  fraction = 0.02  # At 0.02 the hashes of these texts all say train.
  manifest = run(f'text:{tmp_path}/a.txt', tmp_path / 'out', 'train-bpe:260',
                 validation_fraction=fraction)
  assert manifest['validation'] == 'the end of each document'
  (train,), (held,) = (documents(tmp_path / 'out', split) for split in encode.SPLITS)
  assert train + held == text
  assert abs(len(held) / len(text) - fraction) < 0.01
  assert train[-1] in '\n x'
  copied = run([f'text:{tmp_path}/a.txt'] * 3, tmp_path / 'copied', 'train-bpe:260',
               validation_fraction=fraction)
  assert documents(tmp_path / 'copied', 'validation') == [held] * 3
  assert copied['splits']['train']['documents'] == 3


@hypothesis.given(st.text('ab \n', min_size=1, max_size=400), st.floats(0.01, 0.9),
                  st.integers(1, 50))
def test_shares_of_pieces_are_those_of_the_whole(text, tail, size):
  """However a document is cut, train and validation get it all, once, and in one stretch each."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(encode, 'MIN_TAIL', 1)
    found = [share for start in range(0, len(text), size) for share in encode.shares(
      text[start:start + size], False, start, len(text), tail)]
  assert ''.join(share[1] for share in found) == text and all(share[1] for share in found)
  which = [share[0] for share in found]
  assert which == sorted(which)
  for split in set(which):
    mine = [share[2:] for share in found if share[0] == split]
    assert [first for first, _ in mine] == [True] + [False] * (len(mine) - 1)
    assert [last for _, last in mine] == [False] * (len(mine) - 1) + [True]


def test_no_validation_if_none_is_asked_for(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(5))
  assert set(run(source, tmp_path / 'out', validation_fraction=0)['splits']) == {'train'}


def test_a_long_document_is_encoded_as_a_whole(tmp_path, monkeypatch):
  text = ''.join(make_texts(60))
  (tmp_path / 'a.txt').write_text(text)
  run(f'text:{tmp_path}/a.txt', tmp_path / 'whole', validation_fraction=0)
  monkeypatch.setattr(files, 'PIECE', 700)
  monkeypatch.setattr(files, 'CHUNK', 333)
  run(f'text:{tmp_path}/a.txt', tmp_path / 'pieces', validation_fraction=0)
  assert documents(tmp_path / 'pieces', 'train') == [text]
  # All of it: the pieces train the same BPE too.
  assert contents(tmp_path / 'whole') == contents(tmp_path / 'pieces')


def test_all_sources_in_one_corpus_and_any_number_of_workers(tmp_path):
  texts = make_texts(400, longest=100)
  (tmp_path / 'a.txt').write_text('\n---\n'.join(texts[:100]))
  with gzip.open(tmp_path / 'b.jsonl.gz', 'wt') as file:
    file.writelines(json.dumps({'body': text}) + '\n' for text in texts[100:])
  made = [run([f'text:{tmp_path}/*.txt', f'jsonl:{tmp_path}/*.gz:body', 'python:'],
              tmp_path / f'out{n}', workers=n, document_separator='\n---\n', shard_tokens=100_000)
          for n in (1, 2, 3)]
  assert made[0] == made[1] == made[2] and made[0]['splits']['train']['documents'] > 600
  assert contents(tmp_path / 'out1') == contents(tmp_path / 'out2') == contents(tmp_path / 'out3')


def command(source, out, *flags):
  return [sys.executable, '-m', 'gptjax.data.prepare', f'--source={source}', f'--out={out}',
          '--tokenizer=train-bpe:300', '--validation_fraction=0.1', *flags]


KILLED = """
import sys, time
from gptjax.data import blocks, prepare, shards
if __name__ == '__main__':
  blocks.BLOCK_CHARACTERS = 3000
  save = shards.save_state
  def slow_save(folder, state):  # So that there is something to interrupt.
    time.sleep(float(sys.argv[5]))
    save(folder, state)
  shards.save_state = slow_save
  prepare.prepare([sys.argv[1]], 'train-bpe:300', sys.argv[2], validation_fraction=0.1,
                  clean=sys.argv[3], workers=int(sys.argv[4]), tfds_dir='', on_error='skip',
                  clean_without=('short', 'repetition', 'menu') if sys.argv[3] else (),
                  shard_tokens=3000, commit_seconds=0, progress=False)
"""


@pytest.mark.parametrize('clean', ['', 'webtext'])
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(tmp_path, clean):
  lines = [json.dumps({'text': text}) for text in make_texts(600, longest=80) * 2]
  for i in range(40, 1200, 97):
    lines[i] = lines[i][:-9]  # A broken line, to be listed once.
  path = tmp_path / 'a.jsonl'
  path.write_text('\n'.join(lines))
  script = tmp_path / 'script.py'
  script.write_text(KILLED)
  def start(out, n, pause):
    return subprocess.Popen(
      [sys.executable, str(script), f'jsonl:{path}', str(out), clean, str(n), str(pause)],
      env={**os.environ, 'PYTHONPATH': os.getcwd()})
  began = time.monotonic()
  assert start(tmp_path / 'whole', 1, 0).wait() == 0
  seconds, rng, stages = time.monotonic() - began, random.Random(), set()
  state = lambda: (tmp_path / 'killed').exists() and json.dumps(shards.load_state(tmp_path / 'killed'))
  for i in range(5):
    process, before = start(tmp_path / 'killed', rng.choice([1, 1, 2]), 0.02), state()
    while i % 2 and state() == before and process.poll() is None:  # every other time it gets on a little
      time.sleep(0.001)
    time.sleep(seconds * rng.random() / (4 if i % 2 else 1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    stages.add(state())
  assert start(tmp_path / 'killed', 2, 0).wait() == 0
  assert len(stages - {False, 'null'}) >= 2, stages
  whole = contents(tmp_path / 'whole')
  assert whole == contents(tmp_path / 'killed')
  assert whole['skipped.txt'].count(b'not JSON') == 12
  manifest = json.loads(whole['manifest.json'])
  assert manifest['skipped']['not JSON'] == 12
  assert not clean or manifest['skipped']['webtext exact_duplicate'] > 500


def test_stopped_after_every_commit_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
  """At each commit in turn: what was written after it is lost or half there."""
  monkeypatch.setattr(blocks, 'BLOCK_CHARACTERS', 2000)
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(40))
  run(source, tmp_path / 'whole', shard_tokens=700, commit_seconds=0)
  expected, save, rounds = contents(tmp_path / 'whole'), shards.save_state, 0

  class Killed(Exception):
    pass

  def dying(folder, state):
    if count[0] == 0:
      raise Killed
    count[0] -= 1
    save(folder, state)

  monkeypatch.setattr(shards, 'save_state', dying)
  while rounds < 200:
    count, rounds = [2], rounds + 1
    try:
      run(source, tmp_path / 'killed', shard_tokens=700, commit_seconds=0)
      break
    except Killed:
      for path in (tmp_path / 'killed').glob('*.part'):
        with open(path, 'ab') as file:
          file.write(b'half a token of rubbish')
  assert rounds > 5
  assert contents(tmp_path / 'killed') == expected


def test_a_full_disk_is_said_in_one_line_and_gone_on_from(tmp_path, monkeypatch, capsys):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(400))
  monkeypatch.setattr(blocks, 'BLOCK_CHARACTERS', 20_000)
  flags = [f'--source={source}', '--tokenizer=train-bpe:300', '--shard_tokens=9000']
  prepare_module.main([*flags, f'--out={tmp_path}/whole'])
  write, left = shards.Appended.write, [30]
  def full(self, data):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(self, data)
  monkeypatch.setattr(shards.Appended, 'write', full)
  monkeypatch.setattr(sys, 'argv', ['prepare', *flags, f'--out={tmp_path}/full'])
  with pytest.raises(SystemExit) as ended:
    command_module.run(prepare_module.main, 'prepare')
  said = capsys.readouterr().err.splitlines()[-1]
  assert ended.value.code == 2 and said.startswith('prepare: no space left') and left[0] < 0
  monkeypatch.setattr(shards.Appended, 'write', write)
  prepare_module.main([*flags, f'--out={tmp_path}/full'])
  assert contents(tmp_path / 'full') == contents(tmp_path / 'whole')


@pytest.mark.parametrize('out', ['file', 'file/below', '/proc/below'])
def test_a_folder_that_cannot_be_is_refused(tmp_path, out):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'cannot be written to \([^\n]*$'):
    run(write_jsonl(tmp_path / 'a.jsonl', make_texts(5)), tmp_path / out)


def test_the_bar_tells_what_is_left_by_the_inputs_behind(capsys):
  bar = progress.Bar('encoding', [100, 100, 300], 0, 0, 0, True)
  bar.update(1_000_000, 0, '')
  assert '%' not in capsys.readouterr().err
  bar.update(1_000_000, 1, '0.5 M tokens')
  bar.close()
  assert '20%' in (said := capsys.readouterr().err) and '2.00M/10.0M' in said
  assert '0.5 M tokens, input 2 of 3' in said


def test_the_bar_of_plain_files_tells_what_is_left_from_the_first_byte(tmp_path, capsys):
  texts = make_texts(300)
  write_jsonl(tmp_path / 'a.jsonl', texts)
  (tmp_path / 'a.txt').write_text(''.join(texts))
  (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(b'x'))
  plain, packed = (sources.units([f'{kind}:{tmp_path}/{name}' for kind, name in named], '') for named in (
    [('jsonl', 'a.jsonl'), ('text', 'a.txt')], [('text', 'a.txt.gz')]))
  assert all(map(sources.is_plain, plain)) and not any(map(sources.is_plain, packed))
  bar = progress.Bar('encoding', [0, 0], sum(unit.size for unit in plain), 0, 0, True)
  bar.update(sum(map(len, texts)), 0, '')
  bar.close()
  assert '50%|' in capsys.readouterr().err


def test_a_corpus_too_small_to_hold_anything_out_says_so(tmp_path, capsys):
  source = write_jsonl(tmp_path / 'a.jsonl', ['A short one.', 'Another.'])
  for fraction, says in ((0.001, True), (0, False)):
    prepare_module.main([f'--source={source}', '--tokenizer=train-bpe:258', f'--out={tmp_path}/{fraction}',
                         f'--validation_fraction={fraction}'])
    assert ('nothing is held out: too little text for validation_fraction = 0.001' in
            capsys.readouterr().out) == says


def test_finished_means_nothing_to_do(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(50))
  first = run(source, tmp_path / 'out')
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').rglob('*.bin')}
  assert run(source, tmp_path / 'out', workers=2, on_error='skip') == first
  assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').rglob('*.bin')}


@pytest.mark.parametrize('change', [
  {'validation_fraction': 0.2}, {'shard_tokens': 99}, {'tokenizer': 'train-bpe:310'},
  {'document_separator': 'x'}, {'clean': 'webtext'}, {'source': 'python:'}])
def test_another_corpus_in_the_folder_is_refused(tmp_path, change):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(50))
  run(source, tmp_path / 'out')
  expected = contents(tmp_path / 'out')
  with pytest.raises(ValueError, match='holds a corpus'):
    run(change.pop('source', source), tmp_path / 'out', **change)
  assert contents(tmp_path / 'out') == expected


def test_changed_inputs_are_refused(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(50))
  run(source, tmp_path / 'out')
  write_jsonl(tmp_path / 'a.jsonl', make_texts(51))
  with pytest.raises(ValueError, match='another inputs'):
    run(source, tmp_path / 'out')


def test_a_folder_with_something_else_is_left_alone(tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'thesis.tex').write_text('x')
  with pytest.raises(ValueError, match='not empty'):
    run(write_jsonl(tmp_path / 'a.jsonl', make_texts(5)), tmp_path / 'out')
  assert contents(tmp_path / 'out') == {'thesis.tex': b'x'}


def test_two_at_once_are_kept_apart(tmp_path):
  with (shards.locked(tmp_path / 'out'),
        pytest.raises(ValueError, match='written by another process')):
    run(write_jsonl(tmp_path / 'a.jsonl', make_texts(5)), tmp_path / 'out')


def test_what_is_wrong_stops_or_is_skipped_and_counted(tmp_path):
  lines = [json.dumps({'text': text}) for text in make_texts(30)]
  lines[6] = '{"text": "half'
  lines[9] = '{"text": " "}'
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
  with pytest.raises(ValueError, match=r'a\.jsonl:7: not JSON.*on_error=skip'):
    run(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'out')
  # What was begun goes on with the other answer.
  manifest = run(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'out', on_error='skip')
  assert manifest['skipped'] == {'not JSON': 1, 'empty': 1}
  assert [line.split(': ')[1] for line in (
    tmp_path / 'out' / 'skipped.txt').read_text().splitlines()] == ['not JSON', 'empty']
  assert sum(entry['documents'] for entry in manifest['splits'].values()) == 28


def test_a_cut_gzip_gives_what_came_before_the_cut(tmp_path):
  write_jsonl(tmp_path / 'a.jsonl', make_texts(2000))
  data = gzip.compress((tmp_path / 'a.jsonl').read_bytes())
  (tmp_path / 'a.jsonl.gz').write_bytes(data[:len(data) // 2])
  with pytest.raises(ValueError, match=r'a\.jsonl\.gz:\d+: damaged or cut short'):
    run(f'jsonl:{tmp_path}/a.jsonl.gz', tmp_path / 'out')
  manifest = run(f'jsonl:{tmp_path}/a.jsonl.gz', tmp_path / 'skip', on_error='skip')
  assert manifest['skipped'] == {'damaged or cut short': 1}
  train, held = (documents(tmp_path / 'skip', split) for split in encode.SPLITS)
  assert set(train + held) < set(make_texts(2000)) and len(train + held) > 500


def test_large_vocabularies_take_four_bytes(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(30))
  manifest = run(source, tmp_path / 'out')
  assert manifest['dtype'] == 'uint16'
  tokenizer = tokenizers.load(str(tmp_path / 'out' / 'tokenizer'))
  wide = encode.make_encoder(str(tmp_path / 'out' / 'tokenizer'), 'uint32', 0)
  narrow = encode.make_encoder(str(tmp_path / 'out' / 'tokenizer'), 'uint16', 0)
  block = [('some text', False, 0, 9)]
  assert wide(block)[0].tokens.dtype == np.uint32
  assert wide(block)[0].tokens.tolist() == narrow(block)[0].tokens.tolist()
  assert wide(block)[0].tokens[-1] == tokenizer.end_of_text


def test_gpt1_documents_follow_each_other(tmp_path, shared_data):
  texts = ['Hello world', 'the', 'very']
  run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'out', f'gpt1:{shared_data}/bpe/gpt1',
      validation_fraction=0)
  opened = corpus.open_corpus(str(tmp_path / 'out'), 'train', verify=True)
  assert opened.tokens(0, 4).tolist() == [3570, 1276, 481, 963]
  assert opened.document_starts.tolist() == [0, 2, 3] and opened.tokenizer['end_of_text'] is None


def test_tfds_source(tmp_path, shared_data):
  manifest = run('tfds:tiny_shakespeare', tmp_path / 'out', 'train-bpe:500',
                 tfds_dir=str(shared_data / 'tfds'), validation_fraction=0.05)
  (train,), (held,) = (documents(tmp_path / 'out', split) for split in encode.SPLITS)
  text = train + held
  assert (SHARED / 'text/tinyshakespeare/input.txt').read_text().startswith(text)
  assert len(text) > 1_000_000 and manifest['splits']['validation']['documents'] == 1


def test_command_shows_progress_and_a_table(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(500))
  done = subprocess.run(command(source, tmp_path / 'out', '--workers=2'), capture_output=True,
                        text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert 'B/s' in done.stderr and 'tokens' in done.stderr
  for word in ('train', 'validation', 'documents', 'tokens', 'bytes per token', 'skipped', ' s'):
    assert word in done.stdout
  assert 'tensorflow' not in done.stderr.lower()


@pytest.mark.parametrize('flags, message', [
  (['--source=text:/nowhere/x'], 'no file has this name'), (['--on_error=maybe'], 'on_error'),
  (['--validation_fraction=2'], 'validation_fraction'), (['--workers=0'], 'workers'),
  (['--tokenizer=train-bpe:x'], 'train-bpe:N'), (['--unknown=1'], 'unknown'),
  (['--clean=web'], 'clean'), (['--source=jsonl:BAD'], r'a.jsonl:2: not JSON')])
def test_errors_are_one_line_and_exit_code_2(tmp_path, flags, message, monkeypatch, capsys):
  (tmp_path / 'a.jsonl').write_text('{"text": "good"}\nbad\n')
  flags = [flag.replace('BAD', f'{tmp_path}/a.jsonl') for flag in flags]
  monkeypatch.setattr(sys, 'argv', command('text:' + str(tmp_path / 'a.jsonl'), tmp_path / 'out', *flags)[2:])
  with pytest.raises(SystemExit) as ended:
    command_module.run(prepare_module.main, 'prepare')
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert ended.value.code == 2 and last.startswith('prepare: ') and message in last


def test_a_refusal_of_the_command_itself_has_no_traceback(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "good"}\nbad\n')
  done = subprocess.run(command(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'out'), capture_output=True,
                        text=True, check=False)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert done.stderr.strip().splitlines()[-1].startswith(f'prepare: {tmp_path}/a.jsonl:2: not JSON')


WORKING = """
import os, signal, time
from gptjax.data import workers
def make(factor):
  def function(payload):
    if payload == 3:
      os.kill(os.getpid(), signal.SIGKILL)
    if payload == 7:
      raise ValueError('seven')
    time.sleep(0.01 * (payload % 3))
    return payload * factor
  return function
def attempt(items, n):
  try:
    print(list(workers.in_order(make, [2], items, n)))
  except (ValueError, RuntimeError) as error:
    print(error)
if __name__ == '__main__':
  items = [(-i, i) for i in range(10, 40)]
  attempt(items, 1)
  attempt(items, 3)
  attempt([(0, 0), (0, 7)], 2)
  attempt([(0, 0), (0, 3), *items], 2)
"""


def test_workers_keep_the_order_and_pass_on_errors(tmp_path):
  (tmp_path / 'script.py').write_text(WORKING)
  done = subprocess.run([sys.executable, str(tmp_path / 'script.py')], capture_output=True,
                        text=True, check=True, env={**os.environ, 'PYTHONPATH': os.getcwd()})
  one, three, wrong, died = done.stdout.splitlines()
  assert one == three == str([(-i, 2 * i) for i in range(10, 40)])
  assert wrong == 'seven' and died.startswith('a worker process died (exit code -9)')


def test_workers_end_when_their_parent_is_killed(tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text('''
import time
from gptjax.data import workers
def make():
  import os
  return lambda payload: os.getpid()
if __name__ == '__main__':
  for item, pid in workers.in_order(make, (), ((i, i) for i in range(10**9)), 2):
    print(pid, flush=True)
''')
  parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, 'PYTHONPATH': os.getcwd()})
  found = {int(parent.stdout.readline()) for _ in range(200)}
  parent.kill()
  parent.wait()
  deadline = time.monotonic() + 20
  while any(os.path.exists(f'/proc/{pid}') for pid in found):
    assert time.monotonic() < deadline, found
    time.sleep(0.05)
  parent.stdout.close()


MEASURED = """
import resource, sys
from gptjax.data import prepare
if __name__ == '__main__':
  prepare.prepare([sys.argv[1]], sys.argv[2], sys.argv[3], validation_fraction=0.005, clean='',
                  workers=int(sys.argv[4]), tfds_dir='', on_error='stop', progress=False)
  print(max(resource.getrusage(who).ru_maxrss for who in (
    resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def peak_memory(tmp_path, kind, megabytes, tokenizer, workers):
  """Bytes that each of the processes of `prepare` may have had at most, on generated text."""
  block = ''.join(make_texts(2000, longest=300))[:1 << 20]
  lines = [json.dumps({'text': f'NUMBER {block[j:j + 2048]}'}) + '\n'
           for j in range(0, len(block), 2048)]
  whole = block + ' NUMBER\n' if kind == 'text' else ''.join(lines)
  path, out = tmp_path / f'{megabytes}', tmp_path / f'out{megabytes}'
  with open(path, 'w') as file:
    for i in range(megabytes):
      file.write(whole.replace('NUMBER', str(i)))
  (tmp_path / 'script.py').write_text(MEASURED)
  done = subprocess.run([sys.executable, str(tmp_path / 'script.py'), f'{kind}:{path}', tokenizer, str(out),
                         str(workers)], text=True, capture_output=True, check=True,
                        env={**os.environ, 'PYTHONPATH': os.getcwd()})
  assert path.stat().st_size >= megabytes << 20
  path.unlink()
  opened = corpus.open_corpus(str(out), 'train', verify=True)
  held = corpus.open_corpus(str(out), 'validation', verify=True)
  assert opened.n_bytes > 0.9 * megabytes * (1 << 20)
  assert 0.003 < held.n_bytes / opened.n_bytes < 0.007
  return int(done.stdout) * 1024


@pytest.mark.parametrize('kind', ['text', 'jsonl'])
def test_memory_does_not_grow_with_the_corpus(tmp_path, kind):
  tokenizers.train_bpe([' '.join(WORDS)], 290).save(tmp_path / 'tokenizer')
  small, large = (peak_memory(tmp_path, kind, megabytes, f'{tmp_path}/tokenizer', 1)
                  for megabytes in (10, 60))
  assert large < small + (30 << 20), (small, large)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['text', 'jsonl'])
def test_two_gigabytes_in_less_than_one_of_memory(tmp_path, kind, shared_data):
  """One document of 2 GB, and a million lines; this process and its two workers, added up."""
  peak = peak_memory(tmp_path, kind, 2048, f'gpt2:{shared_data}/bpe/gpt2', 2)
  print(f'{3 * peak / 1e6:.0f} MB in three processes at most')
  assert 3 * peak < 1e9, peak
