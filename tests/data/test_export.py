"""The tokens of a corpus in the layouts of other projects, as their own readers take them."""

import foreign_files
import numpy as np
import prepared
import pytest

from gptjax.data import adopt as adopt_command
from gptjax.data import export as export_command
from gptjax.data.corpus import reader, remote_shards
from gptjax.errors import InputError


@pytest.fixture
def corpus(tmp_path):
  coder, _ = foreign_files.tokenizer(tmp_path / 't')
  docs = foreign_files.documents(coder, foreign_files.texts(0, 30))
  foreign_files.corpus(tmp_path / 'c', {'train': docs, 'validation': docs[:3]}, coder, shard_tokens=50)
  return tmp_path / 'c', docs


def export(source, to, out, **options):
  return export_command.export(str(source), to, out, progress=False, **options)


def test_shards_of_llmc_have_its_header_and_an_end_before_each_document(corpus, tmp_path):
  folder, docs = corpus
  export(folder, 'llmc', tmp_path / 'x', shard_tokens=200, name='books')
  stream = np.concatenate([[269], *docs])
  files = sorted((tmp_path / 'x').glob('books_train_*.bin'))
  assert [file.name for file in files] == [f'books_train_{number:06d}.bin' for number in
                                           range(1, -(-len(stream) // 200) + 1)]
  for file, start in zip(files, range(0, len(stream), 200), strict=True):
    part, header = stream[start:start + 200], np.fromfile(file, '<i4', 256)
    assert header.tolist() == [20240520, 1, len(part), *[0] * 253]
    assert (np.fromfile(file, '<u2', offset=1024) == part).all()
  assert len(np.fromfile(tmp_path / 'x' / 'books_val_000000.bin', '<u2', offset=1024)) == 1 + sum(
    map(len, docs[:3]))


def test_files_of_nanogpt_have_the_ids_alone(corpus, tmp_path, capsys):
  folder, docs = corpus
  export_command.main([f'--from={folder}', '--to=nanogpt', f'--out={tmp_path}/x'])
  assert (np.fromfile(tmp_path / 'x' / 'train.bin', '<u2') == np.concatenate(docs)).all()
  assert sorted(path.name for path in (tmp_path / 'x').iterdir()) == ['train.bin', 'val.bin']
  assert 'train       1 file from train.bin on' in capsys.readouterr().out


def test_other_files_that_a_reader_would_take_are_refused(corpus, tmp_path):
  folder, _ = corpus
  export(folder, 'llmc', tmp_path / 'x', shard_tokens=200)
  with pytest.raises(InputError, match=r'holds tokens_train_00000\d.bin, which is not part of this export'):
    export(folder, 'llmc', tmp_path / 'x')
  export(folder, 'llmc', tmp_path / 'x', shard_tokens=200)  # the same again


def test_long_ids_have_the_header_of_llama_or_are_refused(tmp_path):
  class Long:
    n_vocab, digest = 100_000, 'a' * 64
    def save(self, folder):
      pass
  docs = [np.array([70_000, 99_999]), np.array([5, 99_999])]
  foreign_files.corpus(tmp_path / 'c', {'train': docs}, Long(), dtype='uint32')
  export(tmp_path / 'c', 'llmc', tmp_path / 'x')
  path = tmp_path / 'x' / 'tokens_train_000001.bin'
  assert np.fromfile(path, '<i4', 3).tolist() == [20240801, 7, 5]
  assert np.fromfile(path, '<u4', offset=1024).tolist() == [99_999, 70_000, 99_999, 5, 99_999]
  with pytest.raises(InputError, match=r'has 100,000 entries, and the ids of nanogpt are below 65,536'):
    export(tmp_path / 'c', 'nanogpt', tmp_path / 'y')


def test_a_damaged_corpus_or_name_is_refused(corpus, tmp_path):
  folder, _ = corpus
  with pytest.raises(InputError, match='is not the beginning of a file name'):
    export(folder, 'llmc', tmp_path / 'x', name='a/b')
  (folder / 'train-00001.bin').write_bytes(b'\0' * 100)
  with pytest.raises(InputError, match=r'train-00001.bin is damaged'):
    export(folder, 'llmc', tmp_path / 'x')


@pytest.mark.parametrize('name', ['my_train', 'books_validation'])
def test_a_name_by_which_the_split_would_be_mistaken_is_refused(name, corpus, tmp_path):
  with pytest.raises(InputError, match=f'--name={name} has _train or _val in it'):
    export(corpus[0], 'llmc', tmp_path / 'x', name=name)


@pytest.mark.parametrize('to', ['llmc', 'nanogpt'])
def test_the_folders_of_the_corpus_are_not_written_to(corpus, tmp_path, to):
  foreign_files.raw(tmp_path / 'train.bin', [1, 2, 269])
  adopt_command.adopt(f'nanogpt:{tmp_path}', f'bpe:{tmp_path}/t', str(tmp_path / 'adopted'), progress=False)
  (tmp_path / 'link').symlink_to(tmp_path / 'c')
  for source, out in (('c', 'c'), ('c', 'link'), ('link', 'c'), ('adopted', 'adopted'), ('adopted', '.')):
    before = {path: path.read_bytes() for path in (tmp_path / out).iterdir() if path.is_file()}
    with pytest.raises(InputError, match=r'has files of the corpus .*: give another folder'):
      export(tmp_path / source, to, tmp_path / out)
    assert {path: path.read_bytes() for path in (tmp_path / out).iterdir() if path.is_file()} == before


def test_the_shards_of_all_splits_are_fetched_ahead_in_one_order(corpus, tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(remote_shards, 'fetch_ahead', lambda *args: calls.append(args))
  export(corpus[0], 'llmc', tmp_path / 'x')
  assert [[one.split for one in held_out] for _, held_out, _ in calls] == [['train', 'validation']]


@pytest.mark.parametrize('to', ['llmc', 'nanogpt'])
def test_exported_tokens_of_a_prepared_corpus_are_adopted_as_the_same_corpus(tmp_path, to):
  source = prepared.write_jsonl(tmp_path / 'a.jsonl', prepared.make_texts(80))
  made = prepared.run(source, tmp_path / 'made', shard_tokens=3000)
  export(tmp_path / 'made', to, tmp_path / 'exported')
  adopted = adopt_command.adopt(f'{to}:{tmp_path}/exported/*.bin', f'bpe:{tmp_path}/made/tokenizer',
                                str(tmp_path / 'adopted'), progress=False)
  assert adopted['content'] == made['content']
  assert {name: split['bytes'] for name, split in adopted['splits'].items()} == {
    name: split['bytes'] for name, split in made['splits'].items()}
  opened = [reader.open_corpus(tmp_path / folder, 'train', verify=True) for folder in ('made', 'adopted')]
  batches = [reader.batch([corpus], [1], 3, 5, 8, 33, False) for corpus in opened]
  assert (batches[0]['inputs'] == batches[1]['inputs']).all()


@pytest.mark.parametrize('kind', ['llmc', 'npy'])
@pytest.mark.parametrize('whole', [True, False])
def test_an_end_is_written_first_only_before_a_whole_document(kind, whole, tmp_path):
  _, spec = foreign_files.tokenizer(tmp_path / 't')
  stream = [269, 5, 6, 269, 7, 269, 8] if whole else [5, 6, 269, 7, 269, 8]
  (tmp_path / 'f').mkdir()
  if kind == 'llmc':
    foreign_files.llmc(tmp_path / 'f' / 'x_train_000001.bin', stream)
  else:
    foreign_files.npy(tmp_path / 'f' / 'x_train_000001.npy', stream)
  found = adopt_command.adopt(f'{kind}:{tmp_path}/f', spec, str(tmp_path / 'c'), progress=False)
  export(tmp_path / 'c', 'llmc', tmp_path / 'x', name='x')
  path = tmp_path / 'x' / 'x_train_000001.bin'
  assert np.fromfile(path, '<u2', offset=1024).tolist() == stream
  again = adopt_command.adopt(f'llmc:{tmp_path}/x', spec, str(tmp_path / 'd'), progress=False)
  assert again['content'] == found['content']


def test_no_end_is_written_into_tokens_that_have_none(tmp_path):
  _, spec = foreign_files.tokenizer(tmp_path / 't')
  foreign_files.raw(tmp_path / 'train.bin', [5, 6, 7, 8])
  adopt = lambda source, out: adopt_command.adopt(source, spec, str(out), no_end_of_text=True, progress=False)
  found = adopt(f'nanogpt:{tmp_path}', tmp_path / 'c')
  export(tmp_path / 'c', 'llmc', tmp_path / 'x')
  assert np.fromfile(tmp_path / 'x' / 'tokens_train_000001.bin', '<u2', offset=1024).tolist() == [5, 6, 7, 8]
  assert adopt(f'llmc:{tmp_path}/x', tmp_path / 'd')['content'] == found['content']


def test_documents_that_no_token_separates_are_reported(tmp_path, capsys):
  _, spec = foreign_files.tokenizer(tmp_path / 't')
  foreign_files.megatron(tmp_path / 'm', [[1, 2], [3, 4], [5, 6]])
  adopt_command.adopt(f'megatron:{tmp_path}', spec, str(tmp_path / 'c'), no_end_of_text=True, progress=False)
  for to in ('llmc', 'nanogpt'):
    export_command.main([f'--from={tmp_path}/c', f'--to={to}', f'--out={tmp_path}/{to}'])
    assert 'no token separates the 3 documents, so the files do not show where' in capsys.readouterr().out
