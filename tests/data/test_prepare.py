"""A corpus is what its sources say, byte for byte."""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from conftest import SHARED
from hypothesis import strategies as st
from prepared import command, contents, documents, make_texts, run, write_jsonl

from gptjax.command import run as command_module
from gptjax.data import encode, prepare
from gptjax.data.corpus import reader, tree
from gptjax.data.sources import documents as sources
from gptjax.data.sources import files
from gptjax.data.tokenizers import characters, loading
from gptjax.storage import ownership


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


def test_other_shards_and_another_place_give_the_same_batches(tmp_path, monkeypatch):
  monkeypatch.setattr(tree, 'BLOCK_TOKENS', 512)
  texts, opened = make_texts(200), []
  for size in (700, 5000, 10**8):
    (tmp_path / f'in{size}').mkdir()
    source = write_jsonl(tmp_path / f'in{size}' / 'a.jsonl', texts)
    manifest = run(source, tmp_path / f'out{size}', shard_tokens=size, workers=1)
    opened.append(reader.open_corpus(str(tmp_path / f'out{size}'), 'train', verify=True))
    stream = b''.join((tmp_path / f'out{size}' / shard['file']).read_bytes()
                      for shard in manifest['splits']['train']['shards'])
    blocks = [stream[at:at + 2 * tree.BLOCK_TOKENS] for at in range(0, len(stream), 2 * tree.BLOCK_TOKENS)]
    leaves = b''.join(hashlib.sha256(block).digest() for block in blocks)
    assert hashlib.sha256(leaves).hexdigest() == manifest['splits']['train']['sha256']
  assert len({c.digest for c in opened}) == 1 and len({len(c.shards) for c in opened}) == 3
  batches = [reader.batch([c], [1], 5, 7, 16, 33, False) for c in opened]
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
    found = [share for start in range(0, len(text), size) for share in encode.split_piece(
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
  monkeypatch.setattr(files, 'MAX_PIECE', 700)
  monkeypatch.setattr(files, 'CHUNK', 333)
  run(f'text:{tmp_path}/a.txt', tmp_path / 'pieces', validation_fraction=0)
  assert documents(tmp_path / 'pieces', 'train') == [text]
  # All of it: the pieces train the same BPE too.
  assert contents(tmp_path / 'whole') == contents(tmp_path / 'pieces')


@pytest.mark.ci
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


@pytest.mark.parametrize('out', ['file', 'file/below', '/proc/below'])
def test_a_folder_that_cannot_be_is_refused(tmp_path, out):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'is not writable \([^\n]*$'):
    run(write_jsonl(tmp_path / 'a.jsonl', make_texts(5)), tmp_path / out)


def test_a_corpus_too_small_to_hold_anything_out_says_so(tmp_path, capsys):
  source = write_jsonl(tmp_path / 'a.jsonl', ['A short one.', 'Another.'])
  for fraction, says in ((0.001, True), (0, False)):
    prepare.main([f'--source={source}', '--tokenizer=train-bpe:258', f'--out={tmp_path}/{fraction}',
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
  with pytest.raises(ValueError, match='of other files: a name or a size has changed'):
    run(source, tmp_path / 'out')


def test_a_folder_with_something_else_is_left_alone(tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'thesis.tex').write_text('x')
  with pytest.raises(ValueError, match='not empty'):
    run(write_jsonl(tmp_path / 'a.jsonl', make_texts(5)), tmp_path / 'out')
  assert contents(tmp_path / 'out') == {'thesis.tex': b'x'}


def test_two_at_once_are_kept_apart(tmp_path):
  with (ownership.own_folder(tmp_path / 'out'),
        pytest.raises(ValueError, match=rf'in use by process {os.getpid()} on ')):
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
  tokenizer = loading.load(str(tmp_path / 'out' / 'tokenizer'))
  wide = encode.make_encoder(str(tmp_path / 'out' / 'tokenizer'), 'uint32', 0)
  narrow = encode.make_encoder(str(tmp_path / 'out' / 'tokenizer'), 'uint16', 0)
  block = [('some text', False, 0, 9, 'FILE:1')]
  assert wide(block)[0].tokens.dtype == np.uint32
  assert wide(block)[0].tokens.tolist() == narrow(block)[0].tokens.tolist()
  assert wide(block)[0].tokens[-1] == tokenizer.end_of_text


def test_gpt1_documents_follow_each_other(tmp_path, shared_data):
  texts = ['Hello world', 'the', 'very']
  run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'out', f'gpt1:{shared_data}/bpe/gpt1',
      validation_fraction=0)
  opened = reader.open_corpus(str(tmp_path / 'out'), 'train', verify=True)
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
  assert 'B/s' in done.stderr and 'encoding' in done.stderr
  for word in ('train', 'validation', 'documents', 'tokens', 'bytes per token', 'skipped', ' s'):
    assert word in done.stdout
  assert 'tensorflow' not in done.stderr.lower()


@pytest.mark.parametrize('flags, message', [
  (['--source=text:/nowhere/x'], 'no file has this name'), (['--on_error=maybe'], 'on_error'),
  (['--validation_fraction=2'], 'validation_fraction'), (['--workers=0'], 'workers'),
  (['--tokenizer=train-bpe:x'], 'train-bpe:N'), (['--tokenizer=train-bpe'], 'as in train-bpe:8192'),
  (['--tokenizer=bpe'], 'train-bpe:N and train-char train one'),
  (['--val_fraction=0'], '--validation_fraction?'),
 (['--unknown=1'], 'unknown'),
  (['--clean=web'], 'clean'), (['--source=jsonl:BAD'], r'a.jsonl:2: not JSON')])
def test_errors_are_one_line_and_exit_code_2(tmp_path, flags, message, monkeypatch, capsys):
  (tmp_path / 'a.jsonl').write_text('{"text": "good"}\nbad\n')
  flags = [flag.replace('BAD', f'{tmp_path}/a.jsonl') for flag in flags]
  monkeypatch.setattr(sys, 'argv', command('text:' + str(tmp_path / 'a.jsonl'), tmp_path / 'out', *flags)[2:])
  with pytest.raises(SystemExit) as ended:
    command_module.run(prepare.main, 'prepare')
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert ended.value.code == 2 and last.startswith('prepare: ') and message in last


@pytest.mark.parametrize('name, kind', [
  ('a.txt', 'text'), ('a.jsonl', 'jsonl'), ('a.jsonl.gz', 'jsonl'), ('a.parquet', 'parquet'),
  ('a.tar', 'tar')])
def test_a_source_without_its_kind_is_refused_with_it(tmp_path, name, kind):
  (tmp_path / name).write_text('')
  with pytest.raises(ValueError, match=f'has no kind: write {kind}:{tmp_path}/{name}$'):
    sources.units([f'{tmp_path}/{name}'], '')


def test_after_an_error_before_the_first_commit_other_settings_may_follow(tmp_path):
  (tmp_path / 'a.txt').write_text('one two\n\nthree four\n')
  options = dict(validation_fraction=0.0, clean='', workers=1, tfds_dir='', on_error='stop')
  make = lambda tokenizer, **more: prepare.prepare(
    [f'text:{tmp_path}/a.txt'], tokenizer, str(tmp_path / 'made'), **options, **more)
  with pytest.raises(ValueError, match='too short for 5000 entries'):
    make('train-bpe:5000')
  manifest = make('train-bpe:258', document_separator='\n\n')
  assert manifest['splits']['train']['documents'] == 2
  with pytest.raises(ValueError, match=r"another document_separator \('\\n\\n', not ''\): give the"):
    make('train-bpe:258')


def test_a_refusal_of_the_command_itself_has_no_traceback(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "good"}\nbad\n')
  done = subprocess.run(command(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'out'), capture_output=True,
                        text=True, check=False)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert done.stderr.strip().splitlines()[-1].startswith(f'prepare: {tmp_path}/a.jsonl:2: not JSON')


@pytest.mark.parametrize('content', ['', '\n \n\n'])
def test_sources_without_documents_are_named(tmp_path, content):
  characters.train_characters(['a']).save(tmp_path)
  (tmp_path / 'a.jsonl').write_text(content)
  with pytest.raises(ValueError, match=r'the sources jsonl:.*a.jsonl have no documents: they are empty'):
    run(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'c', f'char:{tmp_path}')
