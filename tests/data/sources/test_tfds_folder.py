"""A TFDS folder may come from anyone: code that it names is not run, files outside of it are not read."""

import json
import subprocess
import sys

import jax
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of

import gptjax
from gptjax.data.sources import documents, tfds, tfds_folder
from gptjax.data.tokenizers import byte_bpe
from gptjax.errors import InputError
from gptjax.evaluate.texts import sources as eval_sources
from gptjax.model.lstm import language_model
from gptjax.pretrained import layout

OURS = 'tensorflow_datasets.core.features.text_feature.Text'
THEIRS = 'data.tfds.mytext.payload.Anything'
FEATURES = {'pythonClassName': 'tensorflow_datasets.core.features.features_dict.FeaturesDict',
            'featuresDict': {'features': {'text': {'pythonClassName': OURS, 'text': {}}}}}
INFO = {'name': 'mytext', 'version': '1.0.0', 'fileFormat': 'tfrecord', 'splits': [{
  'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': 'train', 'numBytes': '20',
  'shardLengths': ['1']}]}


def write(folder, features=FEATURES, info=INFO):
  """A data set of one version, with code beside it that says when it is run; gives the version's folder."""
  made = folder / info['version']
  made.mkdir(parents=True)
  (made / 'features.json').write_text(json.dumps(features))
  (made / 'dataset_info.json').write_text(json.dumps(info))
  (folder / 'payload.py').write_text('print("EXECUTED")\n')
  return made


def features_of(**changes):
  return {**FEATURES, 'featuresDict': {'features': {'text': {'pythonClassName': OURS, **changes}}}}


def info_of(**changes):
  return {**INFO, 'splits': [{**INFO['splits'][0], **changes}]}


def run(cwd, module, *flags):
  """`python -m` as a user runs it: the current folder is the first place where modules are looked for."""
  return subprocess.run([sys.executable, '-m', module, *flags], cwd=cwd, capture_output=True, text=True,
                        env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)}, timeout=120)


def test_a_class_beside_the_data_is_not_imported_by_prepare(tmp_path):
  write(tmp_path / 'data' / 'tfds' / 'mytext', features_of(pythonClassName=THEIRS))
  found = run(tmp_path, 'gptjax.data.prepare', '--source=tfds:mytext:1.0.0:train:text', '--tfds_download',
              '--tfds_dir=data/tfds', '--tokenizer=train-bpe:300', '--out=out')
  assert found.returncode == 2 and 'EXECUTED' not in found.stdout + found.stderr
  assert 'features.json' in found.stderr and THEIRS in found.stderr and 'Traceback' not in found.stderr


@pytest.mark.ci
def test_a_class_beside_the_data_is_not_imported_by_an_evaluation(tmp_path):
  folder = tmp_path / 'data' / 'tfds'
  write(folder / 'wsc273', features_of(pythonClassName='data.tfds.wsc273.payload.Anything'))
  with mesh_of():
    model = layout.config_from_fields({'n_layer': 1, 'n_head': 2, 'n_embd': 8, 'n_ctx': 32, 'n_vocab': 257})
    tokenizer = byte_bpe.train_bpe(['a b'], 257)
    gptjax.save_pretrained(language_model(jax.random.key(0), model), tokenizer, tmp_path / 'model')
  found = run(tmp_path, 'gptjax.main', f'--config={ROOT}/configs/gpt2_zero_shot.py', '--workdir=run',
              '--config.init_from=model', '--config.data.tfds_dir=data/tfds',
              '--config.data.tfds_download=True', '--config.eval.tasks=winograd')
  assert found.returncode == 2 and 'EXECUTED' not in found.stdout + found.stderr
  assert 'wsc273.payload' in found.stderr and 'Traceback' not in found.stderr


@pytest.mark.parametrize('features, info', [
  (features_of(pythonClassName=THEIRS), INFO),
  (features_of(python_class_name=THEIRS), INFO),
  ({**FEATURES, 'pythonClassName': THEIRS}, INFO),
  ({'type': THEIRS, 'content': {}}, INFO),
  (features_of(jsonFeature={'json': json.dumps({'text': {'type': THEIRS, 'content': {}}})}), INFO),
  (features_of(sequence={'feature': {'pythonClassName': THEIRS}}), INFO),
  (FEATURES, {**INFO, 'features': {'pythonClassName': THEIRS}}),
  (features_of(pythonClassName='tensorflow_datasets_of_mine.x.Y'), INFO)])
def test_no_spelling_of_a_class_of_others_passes(tmp_path, features, info):
  folder = write(tmp_path / 'mytext', features, info)
  with pytest.raises(InputError, match=r'\.json names the class .*, code outside of tensorflow_datasets'):
    tfds_folder.require_safe(folder)


@pytest.mark.parametrize('info', [
  info_of(filepathTemplate='/etc/passwd'), info_of(filepathTemplate='../{SPLIT}'),
  info_of(filepathTemplate='a/../../b'), info_of(filepath_template='{SPLIT:>99999999999}'),
  info_of(filepathTemplate='gs://bucket/{SPLIT}'), info_of(name='../x'), {**INFO, 'name': '/tmp/x'},
  info_of(name=['train']), {**INFO, 'splits': 3}, {**INFO, 'splits': [3]}])
def test_no_file_outside_of_the_folder_is_read(tmp_path, info):
  with pytest.raises(InputError, match=r'dataset_info\.json'):
    tfds_folder.require_safe(write(tmp_path / 'mytext', info=info))


@pytest.mark.parametrize('text', [b'{', b'[' * 100_000, b'\xff', b'{"a": ' + b'[],' * 5_000_000])
def test_descriptions_that_are_not_json_are_refused_in_one_line(tmp_path, text):
  folder = write(tmp_path / 'mytext')
  tfds_folder.require_safe(folder)
  (folder / 'features.json').write_bytes(text)
  with pytest.raises(InputError, match=r'features\.json is not JSON') as error:
    tfds_folder.require_safe(folder)
  assert '\n' not in str(error.value) and len(str(error.value)) < 500


def test_the_newest_version_is_found_or_the_one_that_is_named_and_the_default_config(tmp_path, monkeypatch):
  for version in ('1.0.0', '2.10.0', '2.9.0'):
    write(tmp_path / 'a', info={**INFO, 'version': version})
    write(tmp_path / 'b' / 'small', info={**INFO, 'version': version})
  (tmp_path / 'a' / '3.0.0.incompleteABC').mkdir()
  find = lambda name: tfds_folder.find_folder(name, str(tmp_path))
  found = lambda name: (path := find(name)) and str(path.relative_to(tmp_path))
  assert found('a') == 'a/2.10.0' and found('a:1.0.0') == 'a/1.0.0' and found('a:5.0.0') is None
  assert found('b') is None and found('b/small') == 'b/small/2.10.0' and found('c') is None
  (tmp_path / 'b' / '.config').mkdir()
  for name, there in (('small', 'b/small/1.0.0'), ('../a', None)):
    (tmp_path / 'b' / '.config' / 'metadata.json').write_text(json.dumps({'default_config_name': name}))
    assert found('b:1.0.0') == there
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  assert tfds_folder.find_folder('a', '').name == '2.10.0'


def test_another_version_is_read_and_nothing_is_fetched(tmp_path, monkeypatch):
  """Neither the set, nor its description from TFDS's bucket; in an evaluation whatever the config says."""
  from tensorflow_datasets.core import dataset_info
  builders = tfds._library().core.DatasetBuilder
  asked = []
  monkeypatch.setattr(builders, 'download_and_prepare', lambda self: asked.append(self.name))
  monkeypatch.setattr(dataset_info.DatasetInfo, 'initialize_from_bucket', lambda self: asked.append('bucket'))
  write(tmp_path / 'glue' / 'cola', info={**INFO, 'name': 'glue', 'configName': 'cola'})
  builder = tfds.open_dataset('glue/cola', str(tmp_path))
  assert str(builder.version) == '1.0.0' and list(builder.info.splits) == ['train']
  data = eval_sources.DataOptions('', str(tmp_path), 0)
  assert eval_sources.read_tfds(data, 'glue/rte', 'train', None) is None
  for name in ('glue/rte', 'glue/cola:2.0.0', 'nothing'):
    with pytest.raises(InputError, match='is not in'):
      documents.units([f'tfds:{name}:train:sentence'], str(tmp_path))
  assert not asked
