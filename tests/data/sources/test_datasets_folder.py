"""Folders of the library `datasets`, in the layout that its version 5.2 writes: state.json and the others."""

import json

import fsspec
import pyarrow
import pytest
from pyarrow import ipc
from source_files import TEXTS, problems, read, texts

from gptjax.data.prepare import prepare
from gptjax.data.sources import documents
from gptjax.errors import InputError

STATE = {'_fingerprint': '11d8623d4f7d7fa2', '_format_columns': None, '_format_kwargs': {},
         '_format_type': None, '_output_all_columns': False, '_split': None}
ROWS = [f'row {i} é' for i in range(10)]


def write_file(path, values, field='text'):
  table = pyarrow.table({field: values, 'meta': [{'url': f'http://{value}/', 'n': 1} for value in values]})
  table = table.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': {}}})})
  with ipc.new_stream(str(path), table.schema) as writer:
    writer.write_table(table, max_chunksize=2)


def save(folder, values, shards=1, field='text', **state):
  """As `Dataset.save_to_disk` does."""
  folder.mkdir(parents=True)
  names = [f'data-{i:05}-of-{shards:05}.arrow' for i in range(shards)]
  for i, name in enumerate(names):
    write_file(folder / name, values[len(values) * i // shards:len(values) * (i + 1) // shards], field)
  state = {'_data_files': [{'filename': name} for name in names], **STATE, **state}
  (folder / 'state.json').write_text(json.dumps(state))
  (folder / 'dataset_info.json').write_text('{"citation": "", "features": {"text": {"dtype": "string"}}}')
  return folder


def save_all(folder, **splits):
  """As `DatasetDict.save_to_disk` does."""
  for name, values in splits.items():
    save(folder / name, values)
  (folder / 'dataset_dict.json').write_text(json.dumps({'splits': [*splits]}))
  return folder


def prepared(folder, name, **splits):
  """As `load_dataset` does in its cache; a split is a list of shards."""
  folder.mkdir(parents=True)
  facts = {}
  for split, shards in splits.items():
    facts[split] = {'name': split, 'num_examples': sum(map(len, shards)), 'dataset_name': name}
    if len(shards) > 1:
      facts[split]['shard_lengths'] = [*map(len, shards)]
    for i, values in enumerate(shards):
      number = f'-{i:05}-of-{len(shards):05}' if len(shards) > 1 else ''
      write_file(folder / f'{name}-{split}{number}.arrow', values)
  (folder / 'dataset_info.json').write_text(json.dumps({'builder_name': name, 'splits': facts}))
  write_file(folder / 'cache-b0c7fbffcba168ed.arrow', ['a result of map'])
  return folder


@pytest.mark.parametrize('shards', [1, 3])
def test_a_data_set_that_was_saved(tmp_path, shards):
  folder = save(tmp_path / 'saved', ROWS, shards)
  for end in ('', '/', ':text', '/*.arrow', '/*.arrow:text'):
    source = f'arrow:{folder}{end}'
    found = read(source)
    assert texts(found) == ROWS and found[1].fields == {'url': f'http://{ROWS[1]}/'}
  assert len(documents.units([f'arrow:{folder}'], '')) == shards, 'each file is a unit'
  assert texts(read(f'arrow:{folder}:meta.url'))[0] == 'http://row 0 é/'
  with pytest.raises(InputError, match=r'saved has one split: write arrow:/.*saved:FIELD'):
    read(f'arrow:{folder}:train:text')


def test_the_order_of_files_is_that_of_the_state(tmp_path):
  folder = save(tmp_path / 'saved', ROWS, 3)
  state = json.loads((folder / 'state.json').read_text())
  state['_data_files'].reverse()
  (folder / 'state.json').write_text(json.dumps(state))
  assert texts(read(f'arrow:{folder}')) == [*ROWS[6:], *ROWS[3:6], *ROWS[:3]]


def test_a_dictionary_of_data_sets(tmp_path):
  folder = save_all(tmp_path / 'all', train=ROWS, test=TEXTS, **{'my-split': ['one']})
  assert texts(read(f'arrow:{folder}')) == texts(read(f'arrow:{folder}:train')) == ROWS
  assert texts(read(f'arrow:{folder}:test:text')) == texts(read(f'arrow:{folder}/test')) == TEXTS
  assert texts(read(f'arrow:{folder}:my-split')) == ['one']
  assert texts(read(f'arrow:{folder}:test:meta.url'))[0] == f'http://{TEXTS[0]}/'
  with pytest.raises(InputError, match=r"no split 'text', it has \['my-split', 'test', 'train'\]: write"):
    read(f'arrow:{folder}:text')
  with pytest.raises(InputError, match='no file has this name'):
    read(f'arrow:{folder}:train:text:more')


def test_the_cache_of_the_hub(tmp_path):
  splits = {'train': [ROWS[:4], ROWS[4:]], 'test': [TEXTS]}
  folder = prepared(tmp_path / 'o___n' / 'default' / '0.0.0', 'my-data', **splits)
  assert texts(read(f'arrow:{folder}')) == ROWS
  assert texts(read(f'arrow:{folder}:test')) == texts(read(f'arrow:{folder}/my-data-test.arrow')) == TEXTS
  (folder / 'my-data-train-00001-of-00002.arrow').unlink()
  with pytest.raises(InputError, match=r"must have 2 files of the split 'train', and it has 1 "):
    read(f'arrow:{folder}')


def test_folders_elsewhere(tmp_path):
  save_all(tmp_path / 'all', train=ROWS, test=TEXTS)
  system = fsspec.filesystem('memory')
  system.put(str(tmp_path / 'all'), '/sets/all [1]', recursive=True)
  system.put(str(tmp_path / 'all'), '/sets/all', recursive=True)
  for source in 'arrow:memory://sets/all', 'arrow:memory://sets/all:train:text', 'arrow:memory://sets/all/train':
    assert texts(read(source)) == ROWS
  assert texts(read('arrow:memory://sets/all:test')) == TEXTS
  for source in 'arrow:memory://sets/none', 'arrow:memory://sets/none:train:text':
    with pytest.raises(InputError, match='no file has this name'):
      read(source)


@pytest.mark.parametrize('key', ['_indices_files', '_indices_data_files'])
def test_an_indices_mapping_is_refused_in_one_line(tmp_path, key):
  folder = save(tmp_path / 'saved', ROWS, **{key: [{'filename': 'indices.arrow'}]})
  with pytest.raises(InputError, match=r'saved is a selection of the rows .*: save it again with') as error:
    read(f'arrow:{folder}')
  assert '\n' not in str(error.value)
  assert texts(read(f'arrow:{save(tmp_path / "none", ROWS, **{key: []})}')) == ROWS
  part = save(tmp_path / 'part', ROWS)
  (part / 'state.json').write_text(json.dumps({'_data_files': [
    {'filename': 'data-00000-of-00001.arrow', 'skip': 0, 'take': 5}]}))
  with pytest.raises(InputError, match='is a selection of the rows'):
    read(f'arrow:{part}')


def test_a_file_of_indices_is_refused_and_never_skipped(tmp_path):
  table = pyarrow.table({'indices': pyarrow.array([2, 0], pyarrow.uint64())})
  with ipc.new_stream(str(tmp_path / 'cache-1.arrow'), table.schema) as writer:
    writer.write_table(table)
  with pytest.raises(InputError, match=r'cache-1\.arrow is an indices mapping of the library datasets'):
    read(f'arrow:{tmp_path}/*.arrow')


@pytest.mark.parametrize('name, content, says', [
  ('state.json', '{', 'is not JSON of datasets'), ('state.json', '[]', 'is not of datasets'),
  ('state.json', '\ud800', 'is not JSON'), ('state.json', '{}', 'has no list of files'),
  ('state.json', '{"_data_files": ["a"]}', 'has no list of files'),
  ('state.json', '{"_data_files": [{"filename": "../secret.arrow"}]}', r"has no file '\.\./secret\.arrow'"),
  ('state.json', '{"_data_files": [{"filename": "/etc/passwd"}]}', "has no file '/etc/passwd'"),
  ('state.json', '{"_data_files": [{"filename": 3}]}', 'has no file 3'),
  ('dataset_dict.json', '{"splits": ["../other"]}', r"has no split 'train', it has \[\]"),
  ('dataset_dict.json', '{"splits": 3}', 'has no split'),
  ('dataset_dict.json', '{"splits": [["a"]]}', 'has no split'),
  ('dataset_dict.json', '{"splits": ["train"]}', r'has no state\.json: it is incomplete')])
def test_folders_that_are_wrong_or_lead_elsewhere(tmp_path, name, content, says):
  folder = save(tmp_path / 'saved', ROWS)
  write_file(tmp_path / 'secret.arrow', ['secret'])
  (folder / name).write_bytes(content.encode('utf-8', 'surrogatepass'))
  with pytest.raises(InputError, match=says) as error:
    read(f'arrow:{folder}')
  assert '\n' not in str(error.value)


def test_other_folders(tmp_path):
  write_file(tmp_path / 'a.arrow', ROWS)
  with pytest.raises(InputError, match=r'has neither state\.json, .*give its files, arrow:.*/\*\.arrow'):
    read(f'arrow:{tmp_path}')
  for splits in ({}, [], {'train': 3}, {'train': {'shard_lengths': 'x'}}):
    (tmp_path / 'dataset_info.json').write_text(json.dumps({'splits': splits}))
    with pytest.raises(InputError, match=r'has no split|must have 1 files'):
      read(f'arrow:{tmp_path}')


def test_a_corpus_of_a_folder_with_damage(tmp_path):
  """One shard is cut: it is named, or left out and counted, like another document that cannot be used."""
  folder = save(tmp_path / 'saved', ROWS * 5, 2)
  path = folder / 'data-00000-of-00002.arrow'
  path.write_bytes(path.read_bytes()[:-3])
  (_, problem), = problems(read(f'arrow:{folder}'))
  assert problem.startswith('damaged or cut short')
  run = lambda on_error: prepare(
    [f'arrow:{folder}'], 'train-bpe:260', str(tmp_path / on_error), clean='', validation_fraction=0,
    workers=1, tfds_dir='', on_error=on_error, progress=False)
  with pytest.raises(InputError, match=r'data-00000-of-00002\.arrow:26: damaged or cut short'):
    run('stop')
  assert run('skip')['splits']['train']['documents'] == 50
