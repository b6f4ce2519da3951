"""Tokenizers, data sets and lists of words in buckets are read through copies on this machine."""

import json
from types import SimpleNamespace

import object_storage
import prepared
import pytest

from gptjax import defaults
from gptjax.config import resolve
from gptjax.data import prepare
from gptjax.data.clean import webtext
from gptjax.data.sources import documents, tfds, tfds_folder
from gptjax.data.tokenizers import __main__ as tokenizers_command
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.evaluate.run import data_options
from gptjax.evaluate.texts import sources as eval_sources
from gptjax.finetune.tasks import examples
from gptjax.storage.files import buckets, cache, paths

served = object_storage.served(object_storage.GS_AND_SLOWLY_S3)


@pytest.fixture
def url(served, tmp_path, monkeypatch, request):
  """The Url of an empty folder; nothing but the cache may be made in the current folder."""
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  yield paths.location(f'{served[0]}://buck/{abs(hash(request.node.name))}')
  assert list((tmp_path / 'here').iterdir()) == []


def put_lines(url, *lines):
  buckets.put(url, ''.join(f'{line}\n' for line in lines))


def test_a_tokenizer_is_trained_into_a_bucket_and_used_from_it(url, served, capsys, tmp_path):
  put_lines(url / 'texts' / 'a.txt', *prepared.make_texts(30))
  tokenizers_command.main(['train', '--kind=bpe', '--vocab_size=300', f'--source=text:{url}/texts/*.txt',
                           f'--out={url}/bpe'])
  assert f'{url}/bpe: bpe, 300 entries' in capsys.readouterr().out
  buckets.put(url / 'bpe' / 'model.safetensors', bytes(100))
  specs = f'bpe:{url}/bpe', f'{url}/bpe', f'{url}/bpe/'
  loaded = [loading.load(spec) for spec in specs]
  assert len({tokenizer.digest for tokenizer in loaded}) == 1
  before = len(served[1].requests)
  loading.load(specs[0])
  content = [path for method, path, _ in served[1].requests[before:] if 'alt=media' in path or '.bpe' in path]
  assert content == []  # the copy is used
  with pytest.raises(InputError, match=f'{url}/bpe does not hold the published encoder.json'):
    loading.load(f'gpt2:{url}/bpe')
  for spec in (f'gpt2:{url}/none', f'{url}/none', f'sentencepiece:{url}/none.model', f'char:{url}/none'):
    with pytest.raises(InputError, match=rf'^{url}/none(\.model)? does not exist'):
      loading.load(spec)
  prepare.main([f'--source=text:{url}/texts/a.txt', f'--tokenizer={url}/bpe', f'--out={url}/corpus',
                '--seq_len=4'])
  assert buckets.names(url / 'corpus' / 'tokenizer') == ['encoder.json', 'vocab.bpe']


def test_the_small_files_of_a_folder_are_copied(url, monkeypatch):
  monkeypatch.setattr(loading.bounded, 'MAX_FILE_BYTES', 50)
  buckets.put(url / 'a.txt', 'small')
  buckets.put(url / 'weights', bytes(51))
  with pytest.raises(InputError, match='has no tokenizer'):
    loading.load(str(url))
  (copied,) = (cache._Settings.folder / 'folders').glob(f'*/{url.name}')
  assert [path.name for path in copied.iterdir()] == ['a.txt']


def test_lists_for_the_recipe(url, tmp_path):
  put_lines(url / 'domains.txt', '# these', 'google', 'www.archive.org')
  put_lines(url / 'titles.txt', 'River')
  recipe = webtext.make_recipe('webtext', (), f'{url}/domains.txt', f'{url}/titles.txt')
  assert recipe.domains == {'google', 'archive.org'} and recipe.titles
  with pytest.raises(InputError, match=f'{url}/none.txt does not exist'):
    webtext.make_recipe('webtext', (), f'{url}/none.txt', '')


def write_data_set(url, name, version):
  text = 'tensorflow_datasets.core.features.text_feature.Text'
  features = {'pythonClassName': 'tensorflow_datasets.core.features.features_dict.FeaturesDict',
              'featuresDict': {'features': {'text': {'pythonClassName': text, 'text': {}}}}}
  info = {'name': name, 'version': version, 'fileFormat': 'tfrecord', 'splits': [{
    'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': 'train', 'numBytes': '20',
    'shardLengths': ['1']}]}
  buckets.put(url / name / version / 'features.json', json.dumps(features))
  buckets.put(url / name / version / 'dataset_info.json', json.dumps(info))


def test_of_tfds_dir_only_the_data_set_that_is_needed_is_copied(url):
  for name, version in (('mine', '1.0.0'), ('mine', '1.2.0'), ('other', '1.0.0')):
    write_data_set(url, name, version)
  assert tfds_folder.find_folder('nothing', str(url)) is None
  builder = tfds.open_dataset('mine', str(url))
  assert str(builder.version) == '1.2.0' and list(builder.info.splits) == ['train']
  assert [path.name for path in (cache._Settings.folder / 'folders').glob('*/*')
          if path.is_dir()] == ['1.2.0']
  assert tfds_folder.find_folder('mine:1.0.0', str(url)).name == '1.0.0'
  with pytest.raises(InputError, match=f'data set nothing is not in {url}: prepare it in a folder of this'):
    tfds.open_dataset('nothing', str(url), download=True)
  data = eval_sources.DataOptions('', str(url), 0)
  assert eval_sources.read_tfds(data, 'nothing', 'train', None) is None


def test_published_files_of_tasks(url):
  buckets.put(url / 'sets' / 'wsc273.jsonl', '{}\n')
  config = defaults.get_config()
  config.eval.data_dir = str(url)
  config.train.steps = 1
  resolve.resolve(config, 'runs/a')
  resolve.check(config)
  found = eval_sources.find_file(data_options(config), 'wsc273.jsonl')
  assert found.read_text() == '{}\n' and found.is_relative_to(cache._Settings.folder)
  config.eval.data_dir = f'{url}/none'
  with pytest.raises(InputError, match='is not a folder'):
    resolve.check(config)


def test_files_of_own_tasks(url):
  put_lines(url / 'train.tsv', 'text\tlabel', 'good film\tgood')
  put_lines(url / 'dev.jsonl', '{"text": "bad film", "label": "bad"}')
  config = SimpleNamespace(finetune=SimpleNamespace(data_dir=str(url)))
  assert list(examples.read_records(examples.Tsv('train.tsv'), config, 'task a')) == [
    {'text': 'good film', 'label': 'good'}]
  assert list(examples.read_records(examples.Jsonl('dev.jsonl'), config, 'task a')) == [
    {'text': 'bad film', 'label': 'bad'}]
  with pytest.raises(InputError, match=f'{url}/test.tsv does not exist'):
    list(examples.read_records(examples.Tsv('test.tsv'), config, 'task a'))


def test_sources_are_read_with_the_settings_of_all_buckets(url, monkeypatch):
  put_lines(url / 'a.txt', 'one')
  assert len(documents.units([f'text:{url}/*.txt'], '')) == 1
  put_lines(url / 'b.txt', 'two')  # lists are not cached
  assert len(documents.units([f'text:{url}/*.txt'], '')) == 2
  import fsspec
  system, _ = fsspec.core.url_to_fs(str(url), **buckets.file_system_options(str(url)))
  assert system is buckets.file_system(url)


@pytest.mark.parametrize('kind, end', [
  ('jsonl', '/*.jsonl:text'), ('jsonl', '/a.jsonl'), ('text', '/**/*.txt'), ('parquet', '/*.parquet'),
  ('tar', '/a.tar'), ('arrow', '/folder'), ('corpus', '/c'), ('tfds_dir', '/c'), ('tokenizer', '/c'),
  ('exclude', '/*.txt'), ('exclude', '/a.txt'), ('wikipedia_titles', '/a'), ('out', '/c')])
def test_a_bucket_that_does_not_exist_is_one_line(url, tmp_path, kind, end):
  where = f'{url.scheme}://nobuck{end}'
  source, flags = prepared.write_jsonl(tmp_path / 'a.jsonl', prepared.make_texts(9)), {}
  if kind == 'tfds_dir':
    source, flags = 'tfds:tiny', {kind: where}
  elif kind in ('exclude', 'tokenizer', 'wikipedia_titles', 'out'):
    flags = {'clean': 'webtext', kind: [where] if kind == 'exclude' else where}
    flags[kind] = f'bpe:{where}' if kind == 'tokenizer' else flags[kind]
  else:
    source = f'{kind}:{where}'
  with pytest.raises(InputError) as error:
    prepared.run(source, **{'out': tmp_path / 'c', **flags})
  line = str(error.value)
  assert ('\n' not in line and f'{url.scheme}://nobuck/' in line) or 'tfds' in kind, line
  assert 'FileNotFound' not in line and 'b/nobuck/o' not in line.partition('(')[0], line
