"""JSON of strangers with an odd value anywhere: it is refused in one line, or it does no harm."""

import json
import math
import shutil

import numpy as np
import pytest
from conftest import train
from corpus_files import write_manifest
from hf_files import write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gptjax
from gptjax import defaults, errors
from gptjax.config import resolve as configs
from gptjax.config import resume
from gptjax.data import inspect, prepare
from gptjax.data.corpus import mixture, reader
from gptjax.data.tokenizers import hf_tokenizer, loading, native
from gptjax.errors import InputError
from gptjax.parallel import jax_settings
from gptjax.pretrain import rewind
from gptjax.pretrained import open_source
from gptjax.report import runs
from gptjax.storage import manifest, rewind_log
from gptjax.storage.files import json_files, records

DEEP = json.loads('[' * 150 + ']' * 150)
ODD = [None, True, 0, -1, 7, 2**31, 2**70, -10**400, 1.5, -1.0, 1e300, math.nan, math.inf, '', 'x', '0',
       '../..', 'a\x1b[2J\x00', '\ud800', 'x' * 5000, [], [1], ['x'], [[]], [None], {}, {'x': 1},
       {'': []}, DEEP]


def places(value, path=()):
  """The path of each value in a JSON value but the whole, of long lists and objects only the first few."""
  inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  for name, one in list(inner)[:40]:
    yield (*path, name)
    yield from places(one, (*path, name))


def replaced(value, path, odd):
  """A copy with another value at a path."""
  if not path:
    return odd
  copy = value.copy()
  copy[path[0]] = replaced(value[path[0]], path[1:], odd)
  return copy


def only_input_errors(work, *arguments):
  """Calls it; errors that a command prints as one line are as good as none."""
  try:
    work(*arguments)
  except Exception as error:
    if not errors.describe(error, ''):
      raise


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """{name: folder} of plain ones: model (Hugging Face), run (a workdir) and corpus."""
  folder = tmp_path_factory.mktemp('odd')
  write_folder(folder / 'model')
  (folder / 'model' / 'generation_config.json').write_text('{"eos_token_id": [263, 3]}')
  (folder / 'model' / 'special_tokens_map.json').write_text('{"eos_token": {"content": "<|endoftext|>"}}')
  (folder / 'model' / 'added_tokens.json').write_text('{"<|endoftext|>": 263}')
  shutil.copytree(folder / 'model', folder / 'library')  # whose tokenizer is that of a library, as it is
  settings = json.loads((folder / 'model' / 'tokenizer_config.json').read_text())
  settings['tokenizer_class'] = 'PreTrainedTokenizerFast'
  (folder / 'library' / 'tokenizer_config.json').write_text(json.dumps(settings))
  whole = json.loads((folder / 'model' / 'tokenizer.json').read_text())
  whole['normalizer'] = {'type': 'Sequence', 'normalizers': [
    {'type': 'NFKC'}, {'type': 'Replace', 'pattern': {'Regex': '(a+)+$'}, 'content': 'a'}]}
  (folder / 'library' / 'tokenizer.json').write_text(json.dumps(whole))
  (folder / 'text.txt').write_text('the blue stone never sings of rain. ' * 400)
  write(folder / 'corpus', folder / 'text.txt')
  done = train(folder / 'corpus', folder / 'run', '--config.train.steps=2', '--config.eval.every_steps=2',
               '--config.model.n_vocab=260', '--config.checkpoint.every_steps=1')
  assert done.returncode == 0, done.stderr
  return folder


def write(folder, text):
  prepare.prepare([f'text:{text}'], 'train-bpe:260', str(folder), validation_fraction=0.2, clean='',
                  workers=1, tfds_dir='', on_error='stop', seq_len=24, progress=False)


def open_model(folder):
  """All that reads the folder of a model before its tensors are read, and its tokenizer at work."""
  tokenizer = open_source(folder).tokenizer
  if tokenizer:
    tokenizer.decode(tokenizer.encode('the blue stone <|endoftext|>'))


def open_run(folder):
  """All that reads a workdir when its run is continued, inspected, shown and used."""
  path = folder / 'config.json'
  only_input_errors(open_model, folder)
  only_input_errors(lambda: resume.restore_stored_fields(config_of(folder), folder))
  n_steps = lambda steps, epochs: steps or 1
  only_input_errors(lambda: configs._check_same_run(path, config_of(folder), 'f' * 64, n_steps))
  only_input_errors(jax_settings.report_changes, path, lambda line: None)
  only_input_errors(inspect.main, [f'--workdir={folder}', '--step=0', '--row=0'])
  only_input_errors(runs.read, [folder])
  only_input_errors(rewind_log.read, folder)
  only_input_errors(rewind.apply_rewinds, folder)


def config_of(folder):
  config = defaults.get_config()
  configs.resolve(config, folder)
  return config


def open_corpus(folder):
  """All that reads a corpus."""
  only_input_errors(inspect.main, [str(folder)])
  only_input_errors(inspect.main, [str(folder), '--document=0'])
  only_input_errors(write, folder, folder.parent / 'text.txt')
  found = mixture.open_mixture([str(folder)], [1.0], verify=True)
  reader.batch(found.train, [1.0], 0, 0, 4, 8, True)
  loading.load(str(folder / 'tokenizer'))


def write_plain(path, value):
  path.write_text(json.dumps(value))


def write_record(path, value):
  """With the right checksum, but where there is none."""
  sealed = isinstance(value, dict) and records.CHECKSUM in value and not contains(value, DEEP)
  path.write_text(records.text(value) if sealed else json.dumps(value))


def contains(value, odd):
  return value is odd or any(contains(one, odd) for one in (
    value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def write_checkpoint(path, value):
  """A signed manifest."""
  path.write_text(json.dumps(manifest._with_digest(value) if isinstance(value, dict) else value))


def write_state(path, value):
  """A file of Orbax's that the manifest vouches for."""
  write_plain(path, value)
  vouch_for(path)


def vouch_for(path):
  """Writes the digest of a file of a checkpoint into its manifest."""
  folder = next(parent for parent in path.parents if (parent / 'manifest.json').exists())
  signed = json.loads((folder / 'manifest.json').read_text())
  signed['files'][str(path.relative_to(folder))] = [path.stat().st_size, manifest._hash(path)]
  write_checkpoint(folder / 'manifest.json', signed)


def open_weights(folder):
  only_input_errors(gptjax.load, folder)


def write_corpus(path, value):
  """A manifest with its digest."""
  write_manifest(path.parent, value) if isinstance(value, dict) else write_plain(path, value)


FILES = {
  'model/config.json': (open_model, write_plain), 'model/tokenizer.json': (open_model, write_plain),
  'library/tokenizer.json': (open_model, write_plain),
  'model/tokenizer_config.json': (open_model, write_plain),
  'model/generation_config.json': (open_model, write_plain),
  'model/special_tokens_map.json': (open_model, write_plain),
  'model/added_tokens.json': (open_model, write_plain),
  'run/config.json': (open_run, write_record),
  'run/checkpoints/2/manifest.json': (open_run, write_checkpoint),
  'run/checkpoints/2/state/_METADATA': (open_weights, write_state),
  'run/rewinds.json': (open_run, write_plain), 'corpus/manifest.json': (open_corpus, write_corpus),
  'corpus/tokenizer/encoder.json': (open_corpus, write_plain)}


def try_one(root, copy, name, value, place, odd):
  """Opens a copy of the folder in which one file has an odd value at one place (None: instead of all)."""
  opens, puts = FILES[name]
  kind = name.partition('/')[0]
  try:
    puts(copy / name, odd if place is None else replaced(value, place, odd))
    opens(copy / kind)
  except Exception as error:
    if not (line := errors.describe(error, '')):
      raise
    assert '\n' not in line[0] and '\x1b' not in line[0] and len(line[0]) < 2000
  finally:
    shutil.copytree(root / kind, copy / kind, dirs_exist_ok=True)


@pytest.fixture(scope='module')
def copy(root, tmp_path_factory):
  (root / 'run' / 'rewinds.json').write_text('[]')
  target = tmp_path_factory.mktemp('copies') / 'odd'
  shutil.copytree(root, target)
  return target


@pytest.mark.first_cases(3)
@pytest.mark.parametrize('name', FILES)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_odd_value_anywhere_is_refused_in_one_line_or_does_no_harm(name, root, copy, capsys, data):
  value = json.loads((root / name).read_text())
  place = data.draw(st.sampled_from([None, *places(value)]))
  try_one(root, copy, name, value, place, data.draw(st.sampled_from(ODD)))


@pytest.mark.parametrize('cut', [0, 0.5])
def test_files_of_orbax_that_are_cut_but_vouched_for_are_refused(cut, root, tmp_path):
  shutil.copytree(root / 'run', tmp_path / 'run')
  state = tmp_path / 'run' / 'checkpoints' / '2' / 'state'
  for path in sorted(path for path in state.rglob('*') if path.is_file()):
    content = path.read_bytes()
    path.write_bytes(content[:int(cut * len(content))])
    vouch_for(path)
    only_input_errors(gptjax.load, tmp_path / 'run')
    path.write_bytes(content)
    vouch_for(path)
  gptjax.load(tmp_path / 'run')


@pytest.mark.parametrize('tokens', [5, [5], [{}], [{'content': []}]])
def test_odd_added_tokens_are_refused_with_a_decoder_beside_them_too(tmp_path, tokens):
  write_folder(tmp_path / 'model')
  for name, change in (('tokenizer.json', {'added_tokens': tokens}),
                       ('tokenizer_config.json', {'added_tokens_decoder': {}})):
    path = tmp_path / 'model' / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | change))
  with pytest.raises(InputError, match='added'):
    hf_tokenizer.load_folder(tmp_path / 'model')


@pytest.mark.parametrize('text, says', [
  ('{"a": 1, "a": 2}', "'a' twice"), ('{"a": NaN}', 'NaN'), ('{"a": 1e999}', '1e999'),
  ('[' * 150 + ']' * 150, 'deep'), ('[' * 100_000, 'deep'), ('{', 'Expecting'), (b'\xff', 'decode'),
  ('9' * 5000, 'digits')])
def test_json_with_surprises_is_refused(text, says):
  with pytest.raises(ValueError, match=says):
    json_files.parse(text)


def test_a_json_file_is_refused_by_its_path(tmp_path):
  path = tmp_path / 'a.json'
  with pytest.raises(InputError, match='No such file'):
    json_files.read(path)
  for text, layout, most, says in (
      ('[]', dict, 99, r'its content is \[\], not dict'), ('{"a": 1}', {'a': str}, 99, 'a is 1, not str'),
      ('{"a": 1}', {'b': str}, 99, "has no 'b'"), ('{"a": true}', {'a': int}, 99, 'True'),
      ('[1, 2]', list, 3, 'more than 3')):
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
      json_files.read(path, layout, most)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('field, value, says', [
  ('n_inner', -4, 'n_inner = -4 must be'), ('layer_norm_epsilon', 10**400, 'layer_norm_epsilon = 2'),
  ('layer_norm_epsilon', math.nan, 'NaN'),
  ('layer_norm_epsilon', -1e-5, 'layer_norm_epsilon = -1e-05 must be'),
  ('resid_pdrop', math.nan, 'NaN'), ('resid_pdrop', 1.0, 'resid_pdrop = 1.0 must be'),
  ('resid_pdrop', -0.1, 'resid_pdrop = -0.1 must be'),
  ('activation_function', ['relu'], 'activation_function'), ('model_type', ['gpt2'], 'model_type')])
def test_fields_of_a_model_are_checked_before_use(field, value, says, tmp_path):
  write_folder(tmp_path, **{field: value})
  with pytest.raises(InputError, match=says) as error:
    open_source(tmp_path)
  assert 'config.json' in str(error.value)


class PanicException(BaseException):
  """As pyo3's, which cannot be imported."""


@pytest.mark.parametrize('error, refused', [
  (PanicException('called unwrap()\n on None'), True), (RuntimeError('INTERNAL'), True),
  (MemoryError(), False), (KeyboardInterrupt(), False)])
def test_what_a_native_library_raises_is_one_line(error, refused):
  def fails(text):
    raise error
  with pytest.raises(InputError if refused else type(error)) as caught:
    native.call('x.model cannot encode a text', fails, 'a')
  assert not refused or str(caught.value).startswith('x.model cannot encode a text: ')


def test_an_empty_sentencepiece_model_is_refused(tmp_path):
  (tmp_path / 'x.model').write_bytes(b'')
  with pytest.raises(InputError, match='empty') as error:
    loading.load(str(tmp_path))
  assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize('header', [
  "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
  "{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}",
  "{'descr': 5, 'fortran_order': 1, 'shape': 'x'}",
  "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", '(' * 5000,
  "{'descr': ('<f4', (1 << 60,))}", '\x00'])
def test_an_odd_npy_header_is_refused(header, tmp_path):
  from gptjax.pretrained import openai
  text = header.encode() + b'\n'
  head = b'\x93NUMPY\x02\x00' + np.uint32(len(text)).tobytes()
  (tmp_path / 'params_0.npy').write_bytes(head + text + bytes(12))
  with pytest.raises(InputError, match=r'params_0\.npy') as error:
    openai._piece(tmp_path / 'params_0.npy')
  assert '\n' not in str(error.value)
