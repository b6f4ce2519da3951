"""What the inspect command prints: counts, damage, lengths, and the text that a run read."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from corpus_files import write_corpus

from gptjax.data import inspect
from gptjax.data.corpus import reader
from gptjax.data.tokenizers import byte_bpe, loading

END = 256
TEXTS = ['One document.\n', 'Zwei Dokumente: \u00e4\u00f6\u00fc.', '', '\u4e09 \U0001f600',
         'x' * 300, 'An \x1b[31mescape.'] * 4


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('corpus') / 'c'
  tokenizer = byte_bpe.train_bpe(['bytes'], 257)
  documents = [np.append(tokenizer.encode(text), END).astype(np.uint16) for text in TEXTS]
  written = write_corpus(root, documents, validation=documents[:2], n_vocab=257, shard_tokens=500,
                         tokenizer_digest=tokenizer.digest)
  tokenizer.save(root / 'tokenizer')
  return written


@pytest.fixture
def workdir(folder, tmp_path):
  return written_workdir(tmp_path, folder, reader.corpus_manifest.read_manifest(folder)['content'])


def written_workdir(path, corpus, digest, mixture=()):
  config = {'data': {'corpus': corpus, 'mixture': mixture, 'seq_len': 20, 'cross_documents': False,
                     'shift_windows': True},
            'train': {'seed': 3, 'batch_size': 4}}
  (path / 'config.json').write_text(json.dumps({'config': config, 'corpus_digest': digest}))
  return str(path)


def test_counts_and_lengths(folder, capsys, tmp_path):
  png = tmp_path / 'lengths.png'
  inspect.main([folder, f'--png={png}'])
  out = capsys.readouterr().out
  corpus = reader.open_corpus(folder, 'train', verify=True)
  n_files = len(corpus.shards) + 1 + 2
  assert f'{n_files} of {n_files} are unchanged' in out
  assert corpus.digest in out and 'bpe, 257 entries, end of text 256' in out
  table = {row[0]: row[1:] for row in map(str.split, out.splitlines()) if row}
  lengths = [len(text.encode()) + 1 for text in TEXTS]
  assert table['train'][:2] == [f'{sum(lengths):,}', f'{len(TEXTS)}']
  assert table['validation'][1] == '2'
  assert f'shortest 1, median {np.median(lengths):,.0f}, mean' in out and 'longest 301' in out
  for low, high in [(1, 1), (8, 15), (256, 511)]:
    span = [str(low)] if low == high else [str(low), 'to', str(high)]
    row = next(line.split() for line in out.splitlines() if line.split()[:len(span)] == span)
    assert int(row[len(span)]) == sum(low <= length <= high for length in lengths)
  assert png.read_bytes().startswith(b'\x89PNG')


def test_document(folder, capsys):
  inspect.main([folder, '--document=7', '--tokens=100'])
  out = capsys.readouterr().out
  assert 'document 7 of train' in out and TEXTS[7] + '<|endoftext|>' in out
  inspect.main([folder, '--document=5'])
  out = capsys.readouterr().out
  assert '\x1b' not in out and r'An \x1b[31mescape.' in out
  inspect.main([folder, '--document=4', '--tokens=5'])
  assert '301 in all; the first 5:' in capsys.readouterr().out
  inspect.main([folder, '--split=validation', '--document=1'])
  assert TEXTS[1] in capsys.readouterr().out


def test_batch_is_what_the_run_read(folder, workdir, capsys):
  corpus = reader.open_corpus(folder, 'train', verify=False)
  tokenizer = loading.load(f'{folder}/tokenizer')
  batch = reader.batch([corpus], [1.0], 3, 70, 4, 20, True, shift=True)
  inspect.main([f'--workdir={workdir}', '--step=70', '--cross_documents=true'])
  out = capsys.readouterr().out
  assert 'batch 70 of train (its loss is logged as step 71), seed 3' in out
  _, windows, starts, _ = reader.batch_windows([corpus], [1.0], 3, 70, 4, 20, True, shift=True)
  for row in range(4):
    start = starts[row]
    first, last = (sum(corpus.document_starts <= at) - 1 for at in (start, start + 19))
    where = f'document {first}' + (f' to {last}' if last > first else '')
    assert f'row {row}: window {windows[row]}, tokens {start:,} to {start + 20:,}, {where}' in out
    assert ' '.join(map(str, batch['inputs'][row])) in out
    assert repr(tokenizer.decode(batch['inputs'][row])) in out
  inspect.main([folder, '--step=70', '--seed=3', '--batch_size=4', '--seq_len=20', '--row=2',
                '--cross_documents=true', '--shift_windows=true'])
  out = capsys.readouterr().out
  assert 'row 2:' in out and 'row 1:' not in out
  assert ' '.join(map(str, batch['inputs'][2])) in out


def test_a_batch_of_single_documents_tells_its_padding(folder, workdir, capsys):
  corpus = reader.open_corpus(folder, 'train', verify=False)
  tokenizer = loading.load(f'{folder}/tokenizer')
  for step in range(5):
    inspect.main([f'--workdir={workdir}', f'--step={step}'])
    out = capsys.readouterr().out
    batch = reader.batch([corpus], [1.0], 3, step, 4, 20, False, shift=True)
    lines = [line for line in out.splitlines() if line.startswith('row ')]
    for line, inputs, targets in zip(lines, batch['inputs'], batch['targets'], strict=True):
      n = (targets != -1).sum()
      assert ('of padding' in line) == (n < 20)
      assert n == 20 or line.endswith(f', then {20 - n} of padding')
      assert ' to ' not in line.partition('document ')[2]
      assert f"{' '.join(map(str, inputs[:n]))}\n{tokenizer.decode(inputs[:n])!r}\n" in out


BAD = {
  'no corpus': ([], 'no corpus: give its folder'),
  'no folder': (['/nowhere/at/all'], 'does not exist'),
  'no split': (['FOLDER', '--split=test'], "no tokens in its split 'test'"),
  'no document': (['FOLDER', '--document=24'], 'document 24 does not exist'),
  'negative document': (['FOLDER', '--document=-1'], '--document: -1 must be'),
  'no batch_size': (['FOLDER', '--step=1', '--seq_len=4', '--seed=0'],
                    'also needs --batch_size, --cross_documents, --shift_windows, or'),
  'negative step': (['--workdir=WORKDIR', '--step=-1'], '--step: -1 must be'),
  'no row': (['--workdir=WORKDIR', '--step=1', '--row=4'], 'row 4 does not exist in batches of 4 x 20'),
  'validation batch': (['--workdir=WORKDIR', '--step=1', '--split=validation'], 'remove --split'),
  'long windows': (['--workdir=WORKDIR', '--step=1', '--seq_len=9999', '--cross_documents=true'],
                   'shorten seq_len'),
  'no tokens': (['FOLDER', '--document=1', '--tokens=0'], '--tokens: 0 must be'),
  'no workdir': (['--workdir=FOLDER', '--step=1'], 'config.json does not exist'),
  'no picture': (['FOLDER', '--png=/nowhere/at/all.png'], 'cannot write /nowhere/at/all.png'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_line(folder, workdir, name):
  argv, message = BAD[name]
  argv = [word.replace('FOLDER', folder).replace('WORKDIR', workdir) for word in argv]
  with pytest.raises(ValueError) as caught:
    inspect.main(argv)
  assert message in str(caught.value) and '\n' not in str(caught.value)


def test_config_that_is_none(tmp_path):
  for text in ('{', '[]', '{"config": {"data": {}}}'):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(ValueError, match=r'not a config\.json of gptjax'):
      inspect.main([f'--workdir={tmp_path}', '--step=1'])


def test_another_tokenizer_is_refused(folder, tmp_path):
  byte_bpe.train_bpe(['many many words'], 258).save(tmp_path / 'c' / 'tokenizer')
  written = write_corpus(tmp_path / 'c', [[1, 2, 3, 256]], n_vocab=257)
  with pytest.raises(ValueError, match='is not the tokenizer of the corpus'):
    inspect.main([written, '--document=0'])


@pytest.mark.ci
def test_command_exits_with_2_and_one_line(folder):
  def run(*argv):
    return subprocess.run([sys.executable, '-m', 'gptjax.data.inspect', *argv], text=True,
                          capture_output=True, check=False, cwd=ROOT)
  for bad in run(folder, '--document=99'), run(folder, '--stpe=3'):
    assert (bad.returncode, bad.stdout, bad.stderr.count('\n')) == (2, '', 1)
    assert bad.stderr.startswith('inspect: ')
  good = run(folder, '--document=0')
  assert (good.returncode, good.stderr) == (0, '') and TEXTS[0] in good.stdout
