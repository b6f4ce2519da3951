"""Files of other projects become corpora in place: same content, same batches; what is damaged is refused."""

import contextlib
import json
import os
import subprocess
import sys
import tracemalloc
from unittest import mock

import foreign_files
import numpy as np
import object_storage
import pytest
from conftest import ENVIRONMENT, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.data import adopt as adopt_command
from gptjax.data import export as export_command
from gptjax.data import inspect as inspect_command
from gptjax.data.corpus import reader, remote_shards, shard_queue, tree
from gptjax.data.foreign import datatrove, files, scan
from gptjax.data.foreign.formats import FORMATS
from gptjax.errors import InputError
from gptjax.storage.files import access, buckets, cache, local, paths


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return foreign_files.tokenizer(tmp_path_factory.mktemp('tokenizer'))


@pytest.fixture(scope='module')
def texts():
  return {'train': foreign_files.texts(0, 200), 'validation': foreign_files.texts(1, 30)}


def adopt(source, spec, out, **options):
  return adopt_command.adopt(source, spec, out, progress=False, **options)


def write(kind, folder, splits, end):
  """Write {split: documents}, mostly in two files each; returns options of `adopt`, and what it must read."""
  folder.mkdir(parents=True, exist_ok=True)
  options, expected = {}, splits
  if kind == 'nanogpt':
    for name, file in (('train', 'train.bin'), ('validation', 'val.bin')):
      foreign_files.raw(folder / file, np.concatenate(splits[name]))
    return options, expected
  for name, short in (('train', 'train'), ('validation', 'val')):
    docs = splits[name]
    halves = [docs[:len(docs) // 2], docs[len(docs) // 2:]]
    stream = np.concatenate(docs)
    cut = len(stream) // 2 + 1  # within a document
    if kind in ('llmc', 'npy'):  # end-of-text precedes a document
      stream = np.append(end, stream[:-1])
      for number, part in enumerate((stream[:cut], stream[cut:])):
        if kind == 'llmc':
          foreign_files.llmc(folder / f'x_{short}_{number:06d}.bin', part)
        else:
          foreign_files.npy(folder / f'x_{short}_{number:06d}.npy', part)
      expected = {**expected, name: [*docs[:-1], docs[-1][:-1]]}
    elif kind in ('raw', 'olmo'):
      for number, part in enumerate((stream[:cut], stream[cut:])):
        foreign_files.raw(folder / f'{short}-{number}.npy', part)
    elif kind == 'megatron':
      for number, part in enumerate(halves):  # the first document in two sequences
        sequences = [part[0][:1], part[0][1:], *part[1:]]
        foreign_files.megatron(folder / f'{short}{number}_text_document', sequences,
                               [0, *range(2, len(sequences) + 1)], modes=number == 0)
    elif kind == 'datatrove':
      for number, part in enumerate(halves):
        foreign_files.datatrove(folder / f'{short}_{number}.ds', part, metadata='gpt2|2' if number else '')
  if kind in ('raw', 'olmo', 'megatron', 'datatrove'):
    options['validation'] = 'val*'
  return options, expected


KINDS = ['nanogpt', 'llmc', 'npy', 'raw', 'olmo', 'megatron', 'datatrove']


@pytest.mark.parametrize('where', ['in place', 'elsewhere'])
@pytest.mark.parametrize('kind', KINDS)
def test_content_and_batches_are_those_of_a_prepared_corpus(kind, where, tokenizer, texts, tmp_path):
  coder, spec = tokenizer
  splits = {name: foreign_files.documents(coder, some) for name, some in texts.items()}
  files = tmp_path / 'files'
  options, expected = write(kind, files, splits, coder.end_of_text)
  before = {path: path.read_bytes() for path in files.iterdir()}
  out = files if where == 'in place' else tmp_path / 'new' / 'corpus'
  found = adopt(f'{kind}:{files}', spec, out, **options)
  prepared = foreign_files.corpus(tmp_path / 'prepared', expected, coder, shard_tokens=1000)
  assert found['content'] == prepared['content']
  assert found.get('tokens_folder') == (None if out == files else str(files))
  assert {path: path.read_bytes() for path in before} == before
  assert sorted(path.name for path in out.iterdir() if path not in before) == [
    'manifest.json', 'tokenizer', 'train-documents.bin', 'validation-documents.bin']
  for split in texts:
    one, other = (reader.open_corpus(folder, split, verify=True) for folder in (out, tmp_path / 'prepared'))
    assert one.n_bytes == sum(len(text.encode()) for text in texts[split])
    assert (one.document_starts == other.document_starts).all()
    for cross in (True, False):
      for step in range(20):
        batches = [reader.batch([corpus], [1.0], 7, step, 4, 16, cross, shift=True)
                   for corpus in (one, other)]
        assert all((batches[0][name] == batches[1][name]).all() for name in batches[0])
  assert adopt(f'{kind}:{files}', spec, out, **options) == found
  inspect_command.main([str(out)])


def test_the_order_does_not_depend_on_the_width_of_the_ids(tokenizer, texts, tmp_path):
  coder, spec = tokenizer
  docs = foreign_files.documents(coder, texts['train'])
  (tmp_path / 'a').mkdir()
  foreign_files.raw(tmp_path / 'a' / 'x.bin', np.concatenate(docs), '<u4')
  foreign_files.megatron(tmp_path / 'm', docs, dtype='int32')
  found = [adopt(f'raw:{tmp_path}/a', spec, tmp_path / 'c', dtype='uint32'),
           adopt(f'megatron:{tmp_path}/m.bin', spec, tmp_path / 'd')]
  prepared = foreign_files.corpus(tmp_path / 'p', {'train': docs}, coder)
  assert {one['content'] for one in found} == {prepared['content']} and found[1]['dtype'] == 'uint32'


def test_a_shard_that_begins_within_a_document_keeps_all_its_tokens(tokenizer, tmp_path):
  coder, spec = tokenizer
  foreign_files.llmc(tmp_path / 'x_train_000001.bin', [5, 6, coder.end_of_text, 7])
  split = adopt(f'llmc:{tmp_path}', spec, tmp_path)['splits']['train']
  assert (split['tokens'], split['documents'], split['shards'][0]['offset']) == (4, 2, 1024)


def test_documents_without_tokens_are_omitted(tokenizer, tmp_path):
  coder, spec = tokenizer
  ids = [5, coder.end_of_text]
  foreign_files.datatrove(tmp_path / 'a.ds', [[], ids, [], [], ids, []])
  foreign_files.megatron(tmp_path / 'm', [[], ids, [], ids, []])
  for kind in ('datatrove', 'megatron'):
    split = adopt(f'{kind}:{tmp_path}', spec, tmp_path / kind)['splits']['train']
    assert split['documents'] == 2
    assert reader.open_corpus(tmp_path / kind, 'train', verify=True).document_starts.tolist() == [0, 2]


def test_files_without_end_of_text_are_refused_or_one_document(tokenizer, tmp_path, monkeypatch):
  spec = tokenizer[1]
  foreign_files.raw(tmp_path / 'train.bin', [1, 2, 3, 4])
  with pytest.raises(InputError, match=r'no end-of-text token \(269\) among the first 4 tokens: give'):
    adopt(f'nanogpt:{tmp_path}', spec, tmp_path)
  assert not (tmp_path / 'manifest.json').exists()
  monkeypatch.setattr(scan, 'NO_MARK_AFTER', 3)
  with pytest.raises(InputError, match=r'train.bin: no end-of-text token'):
    adopt(f'nanogpt:{tmp_path}', spec, tmp_path)
  found = adopt(f'nanogpt:{tmp_path}', spec, tmp_path, no_end_of_text=True)
  assert found['splits']['train']['documents'] == 1
  with pytest.raises(InputError, match='holds a corpus whose no_end_of_text setting is another'):
    adopt(f'nanogpt:{tmp_path}', spec, tmp_path)


def damaged(kind, name, change):
  """A case: a file of the format and what happens to it (None: it is removed)."""
  return pytest.param(kind, name, change, id=f'{kind} {name} {getattr(change, "__name__", change)}')


def header(position, value):
  def edit(content):
    return content[:4 * position] + np.array([value], '<i4').tobytes() + content[4 * position + 4:]
  return edit


def put(at, more):
  return lambda content: content[:at] + more + content[at + len(more):]


cut = lambda content: content[:-1]
short = lambda content: content[:10]
longer = lambda content: content + b'\0\0'
empty = lambda content: b''


@pytest.mark.parametrize('kind, name, change, message', [
  ('nanogpt', 'train.bin', cut, r'train.bin has [\d,]+ bytes of ids, not a multiple of the 2 of uint16'),
  ('nanogpt', 'train.bin', empty, 'train.bin has no tokens'),
  ('nanogpt', 'val.bin', put(20, b'\xff\xff'),
   'val.bin has the id 65535 at token 10, but the tokenizer bpe has 270 entries'),
  ('nanogpt', 'train.bin', None, 'has no files of the train split, 1 of the validation split'),
  ('llmc', 'x_train_000001.bin', cut, 'not the .* of a file with .* tokens: it is truncated'),
  ('llmc', 'x_train_000001.bin', longer, 'something follows its tokens'),
  ('llmc', 'x_train_000000.bin', short, '10 bytes, fewer than the 1,024 of its header'),
  ('llmc', 'x_train_000000.bin', header(0, 20240522), 'begins with 20240522, version 1, not with 20240520'),
  ('llmc', 'x_val_000000.bin', header(1, 2), 'begins with 20240520, version 2'),
  ('llmc', 'x_val_000000.bin', header(2, -1), 'has -1 tokens by its header'),
  ('npy', 'x_train_000000.npy', cut, 'it is truncated'),
  ('npy', 'x_train_000000.npy', short, 'does not begin with the header of a NumPy file'),
  ('npy', 'x_train_000000.npy', put(10, b'('), 'does not begin with the header of a NumPy file'),
  ('npy', 'x_train_000000.npy', put(10, b'  \n '), 'does not begin with the header of a NumPy file'),
  ('npy', 'x_train_000000.npy', put(0, b'x'), 'if it has only ids, as OLMo'),
  ('olmo', 'train-0.npy', put(0, b'\x93NUMPY'), 'it is npy:'),
  ('olmo', 'train-1.npy', cut, 'not a multiple'),
  ('megatron', 'train0_text_document.idx', None, 'train0_text_document.idx is missing'),
  ('megatron', 'train0_text_document.idx', short, 'does not begin with MMIDIDX and the sizes'),
  ('megatron', 'train0_text_document.idx', cut, 'it is damaged'),
  ('megatron', 'train0_text_document.idx', put(9, b'\2'), 'has version 2'),
  ('megatron', 'train0_text_document.idx', put(17, b'\5'), 'ids of int64'),
  ('megatron', 'train0_text_document.idx', put(18, b'\xff' * 8), 'bytes, not the'),
  ('megatron', 'train0_text_document.idx', put(34, b'\3'), 'do not follow each other'),
  ('megatron', 'train0_text_document.bin', longer, 'something follows its tokens'),
  ('datatrove', 'train_0.ds.index', None, 'train_0.ds.index is missing, which has the document ends'),
  ('datatrove', 'train_0.ds.index', cut, 'not a multiple of 8'),
  ('datatrove', 'train_0.ds.index', empty, '0 bytes'),
  ('datatrove', 'train_0.ds.index', put(8, b'\xff\xff'), 'is not a sorted list of positions'),
  ('datatrove', 'train_1.ds', cut, 'it is truncated'),
  ('datatrove', 'train_1.ds.metadata', lambda content: b'gpt2|8\n', 'an id has 8 bytes')])
def test_damaged_files_are_named_in_one_line(kind, name, change, message, tokenizer, texts, tmp_path):
  coder, spec = tokenizer
  splits = {split: foreign_files.documents(coder, some) for split, some in texts.items()}
  options, _ = write(kind, tmp_path, splits, coder.end_of_text)
  path = tmp_path / name
  content = path.read_bytes()
  path.unlink() if change is None else path.write_bytes(change(content))
  with pytest.raises(InputError, match=message) as raised:
    adopt(f'{kind}:{tmp_path}', spec, tmp_path, **options)
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'manifest.json').exists() and not list(tmp_path.glob('*.new'))
  path.write_bytes(content)  # nothing is in the way of another try
  adopt(f'{kind}:{tmp_path}', spec, tmp_path, **options)


@pytest.mark.parametrize('bounds, message', [
  ([0, 2, 1, 3], 'is not a sorted list'), ([1, 3], 'its documents are sequences 1 to 3'),
  ([0, 2], 'not 0 to 3'), ([0, 9, 3], 'begins with sequence 9 of 3'), ([0, -1, 3], 'a document begins'),
  ([0], 'has no documents')])
def test_impossible_documents_are_refused(bounds, message, tokenizer, tmp_path):
  foreign_files.megatron(tmp_path / 'm', [[1, 2], [3], [269]], bounds)
  with pytest.raises(InputError, match=message):
    adopt(f'megatron:{tmp_path}', tokenizer[1], tmp_path)


def test_a_wrong_dtype_is_noticed(tokenizer, tmp_path):
  coder, spec = tokenizer
  ids = np.concatenate(foreign_files.documents(coder, foreign_files.texts(0, 20)))[:600]
  foreign_files.raw(tmp_path / 'a.bin', ids, '<u4')
  foreign_files.raw(tmp_path / 'b.bin', ids, '<u2')
  with pytest.raises(InputError, match=r'every second id is 0 if they are uint16.*: give --dtype=uint32'):
    adopt(f'raw:{tmp_path}/a.bin', spec, tmp_path / 'c')
  with pytest.raises(InputError, match=r'b.bin has the id .* at token 0, .* give the tokenizer'):
    adopt(f'raw:{tmp_path}/b.bin', spec, tmp_path / 'd', dtype='uint32')
  foreign_files.megatron(tmp_path / 'm', [ids], dtype='int16')
  (tmp_path / 'm.bin').write_bytes(np.where(np.arange(len(ids)) == 3, -1, ids).astype('<i2').tobytes())
  with pytest.raises(InputError, match=r'm.bin has the id 65535 at token 3'):
    adopt(f'megatron:{tmp_path}/m.bin', spec, tmp_path / 'e')


def test_uint32_in_files_of_nanogpt_is_noticed(tokenizer, tmp_path):
  ids = np.concatenate(foreign_files.documents(tokenizer[0], foreign_files.texts(0, 20)))
  foreign_files.raw(tmp_path / 'train.bin', ids, '<u4')
  with pytest.raises(InputError, match=r'train.bin: every second id is 0 .* raw: with --validation and'):
    adopt(f'nanogpt:{tmp_path}', tokenizer[1], tmp_path / 'c')
  found = adopt(f'raw:{tmp_path}', tokenizer[1], tmp_path / 'c', dtype='uint32')
  assert found['splits']['train']['tokens'] == len(ids)


def test_files_of_llmc_may_have_no_number(tokenizer, tmp_path):
  foreign_files.llmc(tmp_path / 'TinyStories_train.bin', [269, 1, 2, 269, 3])
  foreign_files.llmc(tmp_path / 'TinyStories_val.bin', [269, 1])
  found = adopt(f'llmc:{tmp_path}', tokenizer[1], tmp_path)
  assert {name: [shard['file'] for shard in split['shards']] for name, split in found['splits'].items()} == {
    'train': ['TinyStories_train.bin'], 'validation': ['TinyStories_val.bin']}
  assert adopt(f'llmc:{tmp_path}', tokenizer[1], tmp_path) == found


@pytest.mark.parametrize('kind', ['megatron', 'datatrove'])
def test_a_corrected_index_is_not_taken_for_complete(kind, tokenizer, tmp_path):
  docs = [[1, 269], [2, 269], [3, 269]]
  if kind == 'megatron':
    write = lambda some: foreign_files.megatron(tmp_path / 'a', some)
  else:
    write = lambda some: foreign_files.datatrove(tmp_path / 'a.ds', some)
  write([docs[0] + docs[1], docs[2]])
  found = adopt(f'{kind}:{tmp_path}', tokenizer[1], tmp_path / 'c')
  assert adopt(f'{kind}:{tmp_path}', tokenizer[1], tmp_path / 'c') == found
  write(docs)
  with pytest.raises(InputError, match='holds a corpus whose index_files setting is'):
    adopt(f'{kind}:{tmp_path}', tokenizer[1], tmp_path / 'c')


def test_npy_of_another_dtype_is_named_as_numpy_writes_it(tokenizer, tmp_path):
  foreign_files.npy(tmp_path / 'a.npy', [1, 269], '>u2')
  with pytest.raises(InputError, match=r'a.npy has >u2 of shape \(2,\)'):
    adopt(f'npy:{tmp_path}', tokenizer[1], tmp_path / 'c')


@pytest.mark.filterwarnings('ignore')  # of Python's parser
@settings(deadline=None, max_examples=200)
@given(st.integers(0, 127),
       st.binary(min_size=1, max_size=4) | st.sampled_from([b'(', b"'''", b'{[', b'\n  \n ']))
def test_a_damaged_header_of_numpy_is_refused(tmp_path_factory, at, more):
  path = tmp_path_factory.mktemp('npy') / 'a.npy'
  foreign_files.npy(path, [1, 269])
  path.write_bytes(put(at, more)(path.read_bytes()))
  try:
    found = FORMATS['npy'].layout(files.File(path, path.stat().st_size), None)
  except InputError as error:
    assert '\n' not in str(error)
  else:
    assert found.dtype.name in ('uint16', 'uint32') and found.offset > 0


@pytest.mark.parametrize('source, options, message', [
  ('llm.c:{}', {}, 'is not KIND:FILES: did you mean llmc?'), ('llmc', {}, 'llmc names no files: write llmc:'),
  ('llmc:', {}, 'llmc: names no files'),
  ('nanogpt:{}/none', {}, 'none does not exist'), ('llmc:{}', {}, r'has no file \*_train\*.bin or'),
  ('raw:{}/*/x.bin', {}, 'is a pattern of folders'),
  ('nanogpt:{}', {'dtype': 'uint16'}, 'have a dtype of their own'),
  ('raw:{}/link.bin', {}, 'is a link to a file outside its folder')])
def test_wrong_arguments_are_refused(source, options, message, tokenizer, tmp_path):
  (tmp_path / 'f').mkdir()
  foreign_files.raw(tmp_path / 'f' / 'train.bin', [1, 269])
  foreign_files.raw(tmp_path / 'elsewhere', [1, 269])
  (tmp_path / 'f' / 'link.bin').symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(InputError, match=message):
    adopt(source.format(tmp_path / 'f'), tokenizer[1], tmp_path / 'c', **options)


@pytest.mark.parametrize('kind, ending', [('megatron', 'bin'), ('datatrove', 'ds'), ('raw', 'bin')])
def test_files_may_be_given_without_their_ending_or_by_a_wide_pattern(kind, ending, tokenizer, tmp_path):
  docs = [[1, 269], [2, 269]]
  if kind == 'megatron':
    foreign_files.megatron(tmp_path / 'x_text', docs)
  elif kind == 'datatrove':
    foreign_files.datatrove(tmp_path / 'x_text.ds', docs)
  else:
    foreign_files.raw(tmp_path / 'x_text.bin', np.concatenate(docs))
  found = [adopt(f'{kind}:{tmp_path}/{where}', tokenizer[1], tmp_path / str(number))
           for number, where in enumerate(('x_text', f'x_text.{ending}', 'x_*'))]
  assert len({one['content'] for one in found}) == 1
  if kind != 'raw':
    index = {'megatron': 'x_text.idx', 'datatrove': 'x_text.ds.index'}[kind]
    with pytest.raises(InputError, match=rf'{index} has no ids, only what describes them: give \*.{ending}'):
      adopt(f'{kind}:{tmp_path}/{index}', tokenizer[1], tmp_path / 'd')


@pytest.mark.parametrize('name', [b'a\nb.bin', b'a\x1b[31m.bin', b'caf\xe9.bin'])
def test_names_that_a_manifest_cannot_have_are_refused(name, tokenizer, tmp_path):
  path = os.path.join(os.fsencode(tmp_path), name)
  with open(path, 'wb') as file:
    file.write(np.array([1, 269], '<u2').tobytes())
  with pytest.raises(InputError, match=r'has a control character or is not Unicode, .*: rename it') as raised:
    adopt(f'raw:{tmp_path}', tokenizer[1], tmp_path / 'c')
  assert str(raised.value).isprintable() and not (tmp_path / 'c').exists()


def test_what_is_in_the_folder_is_not_replaced(tokenizer, tmp_path):
  spec = tokenizer[1]
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    foreign_files.raw(tmp_path / name / 'train.bin', [ord(name), 269])
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'notes').touch()
  with pytest.raises(InputError, match=r'full is not empty \(it holds notes\)'):
    adopt(f'nanogpt:{tmp_path}/a', spec, tmp_path / 'full')
  (tmp_path / 'a' / 'tokenizer').mkdir()
  with pytest.raises(InputError, match='tokenizer exists, and the tokenizer of the corpus would replace it'):
    adopt(f'nanogpt:{tmp_path}/a', spec, tmp_path / 'a')
  adopt(f'nanogpt:{tmp_path}/a', spec, tmp_path / 'c')
  with pytest.raises(InputError, match=r'b.train.bin is not the file that was adopted in'):
    adopt(f'nanogpt:{tmp_path}/b', spec, tmp_path / 'c')


@pytest.mark.parametrize('at', ['index', 'tokenizer', 'manifest'])
def test_a_killed_command_can_be_repeated(at, tokenizer, texts, tmp_path, monkeypatch):
  coder, spec = tokenizer
  splits = {name: foreign_files.documents(coder, some) for name, some in texts.items()}
  write('llmc', tmp_path / 'f', splits, coder.end_of_text)
  code = {'index': 'scan._Starts.add = die', 'tokenizer': 'byte_bpe.ByteBPE.save = die',
          'manifest': 'adopt.access.write = die'}[at]
  script = ('import os, sys\nfrom gptjax.data import adopt\nfrom gptjax.data.foreign import scan\n'
            'from gptjax.data.tokenizers import byte_bpe\n'
            f'def die(*args): os.kill(os.getpid(), 9)\n{code}\nadopt.main(sys.argv[1:])')
  flags = [f'llmc:{tmp_path}/f', f'--tokenizer={spec}', f'--out={tmp_path}/c']
  killed = subprocess.run([sys.executable, '-c', script, *flags], cwd=ROOT, env=ENVIRONMENT, timeout=120)
  assert killed.returncode == -9 and not (tmp_path / 'c' / 'manifest.json').exists()
  found = adopt(flags[0], spec, tmp_path / 'c')
  assert found['content'] == adopt(flags[0], spec, tmp_path / 'd')['content']
  assert not list((tmp_path / 'c').glob('*.new'))


def test_a_file_that_changes_afterwards_is_noticed(tokenizer, tmp_path):
  foreign_files.raw(tmp_path / 'train.bin', [1, 2, 269])
  adopt(f'nanogpt:{tmp_path}', tokenizer[1], tmp_path / 'c')
  foreign_files.raw(tmp_path / 'train.bin', [1, 3, 269])
  with pytest.raises(InputError, match=r'train.bin is damaged'):
    reader.open_corpus(tmp_path / 'c', 'train', verify=True)


def test_memory_does_not_grow_with_the_files(tokenizer, tmp_path):
  ids = np.tile(np.array([1, 2, 3, 269], '<u2'), 1 << 18)
  with (tmp_path / 'train.bin').open('wb') as file:
    for _ in range(48):
      file.write(ids.tobytes())
  tracemalloc.start()
  try:
    found = adopt(f'nanogpt:{tmp_path}', tokenizer[1], tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert found['splits']['train']['tokens'] == 48 << 20 and peak < 72e6, peak


def test_the_command_prints_a_summary_and_exits_with_2(tokenizer, tmp_path):
  foreign_files.raw(tmp_path / 'train.bin', [1, 2, 269])
  flags = [f'--tokenizer={tokenizer[1]}', f'--out={tmp_path}/c']
  call = lambda *more: subprocess.run([sys.executable, '-m', 'gptjax', 'adopt', *more, *flags], cwd=ROOT,
                                      env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
  done = call(f'nanogpt:{tmp_path}')
  assert done.returncode == 0 and 'train              1             1                 3' in done.stdout, done
  assert json.loads((tmp_path / 'c' / 'manifest.json').read_text())['content'] in done.stdout
  failed = call(f'llmc:{tmp_path}/train.bin')
  assert failed.returncode == 2 and failed.stderr.count('\n') == 1 and not failed.stdout


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 268), min_size=1, max_size=30), min_size=1, max_size=20),
       st.integers(2, 40), st.sampled_from(['llmc', 'nanogpt']), st.integers(1, 50))
def test_export_and_adopt_are_inverse(tokenizer, tmp_path_factory, lists, shard_tokens, to, block):
  coder, spec = tokenizer
  folder = tmp_path_factory.mktemp('round')
  with contextlib.ExitStack() as patches:
    for target, name, value in ((local, 'CHUNK', 64), (tree, 'BLOCK_TOKENS', block),
                                (export_command, 'CHUNK', 17), (datatrove, 'CHUNK', 3)):
      patches.enter_context(mock.patch.object(target, name, value))
    docs = [np.append(ids, coder.end_of_text) for ids in lists]
    splits = {'train': docs, 'validation': docs[:2]}
    prepared = foreign_files.corpus(folder / 'p', splits, coder, shard_tokens=23)
    export = lambda source, out: export_command.export(str(source), to, out, shard_tokens=shard_tokens,
                                                       progress=False)
    export(folder / 'p', folder / 'x')
    for out in (folder / 'c', folder / 'x'):
      assert adopt(f'{to}:{folder}/x', spec, out)['content'] == prepared['content']
    export(folder / 'c', folder / 'y')
    written = {path.name: path.read_bytes() for path in (folder / 'y').iterdir()}
    assert written == {name: (folder / 'x' / name).read_bytes() for name in written}
    assert len(written) == len([*(folder / 'x').glob('*.bin')]) - 2  # the indices
    foreign_files.datatrove(folder / 'a.ds', docs)
    foreign_files.datatrove(folder / 'b.ds', docs[:2])
    found = adopt(f'datatrove:{folder}', spec, folder / 'd', validation='b.ds')
    assert found['content'] == prepared['content']


served = object_storage.served(object_storage.GS_AND_SLOWLY_S3)


@pytest.fixture
def bucket(served, tmp_path, monkeypatch, request):
  """The Url of an empty folder; the cache is empty."""
  scheme, _ = served
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  monkeypatch.setattr(cache, '_reserved', {})
  monkeypatch.setattr(cache, '_verified', set())
  monkeypatch.setattr(remote_shards, '_queue', shard_queue.Queue())
  return paths.location(f'{scheme}://buck/{abs(hash(request.node.name))}')


@pytest.mark.ci
@pytest.mark.parametrize('kind', ['llmc', 'megatron', 'datatrove'])
def test_files_and_corpora_may_be_in_buckets(kind, bucket, tokenizer, texts, tmp_path):
  coder, spec = tokenizer
  splits = {name: foreign_files.documents(coder, some) for name, some in texts.items()}
  options, _ = write(kind, tmp_path / 'f', splits, coder.end_of_text)
  expected = adopt(f'{kind}:{tmp_path}/f', spec, tmp_path / 'here', **options)
  for path in (tmp_path / 'f').iterdir():
    access.copy(path, bucket / 'f' / path.name)
  one = reader.open_corpus(tmp_path / 'here', 'train', verify=True)
  for out in (bucket / 'f', bucket / 'c', tmp_path / 'local'):
    found = adopt(f'{kind}:{bucket}/f', spec, out, **options)
    assert found['content'] == expected['content']
    assert found.get('tokens_folder') == (None if out == bucket / 'f' else f'{bucket}/f')
    assert adopt(f'{kind}:{bucket}/f', spec, out, **options) == found
    for verify in (False, True):
      other = reader.open_corpus(str(out), 'train', verify=verify)
      for step in range(3):
        batches = [reader.batch([corpus], [1.0], 7, step, 4, 16, True) for corpus in (one, other)]
        assert (batches[0]['inputs'] == batches[1]['inputs']).all()
  for path in (tmp_path / 'f').iterdir():
    access.copy(path, bucket / 'g' / path.name)
  for out in (bucket / 'c', tmp_path / 'here'):  # the files have moved
    moved = adopt(f'{kind}:{bucket}/g', spec, out, **options)
    assert (moved['content'], moved['tokens_folder']) == (expected['content'], f'{bucket}/g')
  with pytest.raises(InputError, match='of this machine: copy them to the bucket'):
    adopt(f'{kind}:{tmp_path}/f', spec, bucket / 'd', **options)
  exported = export_command.export(str(bucket / 'c'), 'llmc', bucket / 'x', shard_tokens=500, progress=False)
  again = export_command.export(str(tmp_path / 'here'), 'llmc', tmp_path / 'x', shard_tokens=500,
                                progress=False)
  assert [shard.name for shard in exported] == [shard.name for shard in again]
  for shard in again:
    assert access.read(bucket / 'x' / shard.name) == (tmp_path / 'x' / shard.name).read_bytes()


def test_a_corpus_in_a_bucket_with_tokens_of_one_machine_is_refused(bucket, tokenizer, tmp_path):
  foreign_files.raw(tmp_path / 'train.bin', [1, 2, 269])
  adopt(f'nanogpt:{tmp_path}', tokenizer[1], tmp_path / 'c')
  for name in ('manifest.json', 'train-documents.bin'):
    access.copy(tmp_path / 'c' / name, bucket / 'm' / name)
  with pytest.raises(InputError, match='a folder of one machine'):
    reader.open_corpus(str(bucket / 'm'), 'train', verify=False)
