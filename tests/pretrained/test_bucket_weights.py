"""Weights from and into buckets: bit for bit those of a folder here, and never half of an export."""

import numpy as np
import object_storage
import pytest
from conftest import mesh_of
from flax import nnx
from hf_files import write_folder
from safetensors.numpy import load_file

import gptjax
from gptjax.data.tokenizers import loading, training
from gptjax.data.tokenizers.tokenizer_files import saved_files
from gptjax.errors import InputError
from gptjax.generate import generation
from gptjax.pretrained import __main__ as command
from gptjax.pretrained import export
from gptjax.pretrained.run_weights import save_corpus_tokenizer, save_tokenizer
from gptjax.pretrained.workdir import saved_weights
from gptjax.storage.files import access, buckets, cache, paths, spool

served = object_storage.served(object_storage.BUCKETS)


@pytest.fixture
def bucket(served, monkeypatch, request, tmp_path):
  """The Url of a folder of its own."""
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  served[1].fail, served[1].method, served[1].requests[:] = 0.0, '', []
  return paths.location(f'{served[0]}://buck/{abs(hash(request.node.name))}')


@pytest.fixture
def folder(tmp_path):
  return write_folder(tmp_path / 'model')


def put(folder, url):
  for path in folder.iterdir():
    access.write(url / path.name, path.read_bytes())
  return url


def weights(model):
  return {name: np.asarray(leaf) for name, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def assert_equal(model, other):
  ours, theirs = weights(model), weights(other)
  assert ours.keys() == theirs.keys()
  for name, value in ours.items():
    np.testing.assert_array_equal(value, theirs[name])


@pytest.mark.first_cases(1)
def test_a_folder_in_a_bucket_loads_to_the_same_bits(folder, bucket, served):
  put(folder, bucket)
  access.write(bucket / 'pytorch_model.bin', b'a pickle, which is not copied')
  access.write(bucket / 'onnx' / 'model.onnx', b'nor this')
  with mesh_of():
    here, there = gptjax.load(str(folder)), gptjax.load(str(bucket))
    assert_equal(here[0], there[0])
    assert here[1].digest == there[1].digest and gptjax.pretrained.open_source(bucket).folder == bucket
    before = len(served[1].requests)
    assert generation.sample(str(bucket), prompt='the', max_tokens=4) == generation.sample(
      folder, prompt='the', max_tokens=4)
  later = [path for _, path, _ in served[1].requests[before:]]
  assert not [path for path in later if 'safetensors' in path]  # it is in the cache
  copied = {path.name for path in cache.root().glob('folders/*/*/*')}
  assert copied == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize('name, says', [
  ('', 'is not a folder'), ('model.bin', 'is not read as it is'), ('empty', 'has no weights')])
def test_what_is_no_model_is_refused_without_a_download(bucket, name, says):
  access.write(bucket / 'model.bin', b'x')
  access.write(bucket / 'empty' / 'readme', b'x')
  url = bucket / name if name else bucket.parent / 'nothing'
  with pytest.raises(InputError, match=says) as error:
    gptjax.load(str(url))
  assert str(url) in str(error.value) and not list(cache.root().glob('folders/*/*'))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', ['', 'pytorch_model.bin'])
def test_weights_in_a_bucket_are_imported_into_it(folder, bucket, name):
  torch = pytest.importorskip('torch')
  state = {name: torch.from_numpy(value) for name, value in load_file(folder / 'model.safetensors').items()}
  torch.save(state, folder / 'pytorch_model.bin')
  put(folder, bucket / 'in')
  access.remove(bucket / 'in' / 'model.safetensors')
  command.main(['import', str(bucket / 'in' / name if name else bucket / 'in'), str(bucket / 'out')])
  with mesh_of():
    here, there = gptjax.load(str(folder)), gptjax.load(str(bucket / 'out'))
    assert_equal(here[0], there[0])
  assert here[1].digest == there[1].digest
  with pytest.raises(InputError, match=f'{bucket}/out exists: give the name of a new folder'):
    command.main(['import', str(bucket / 'in'), str(bucket / 'out')])


def test_an_export_into_a_bucket_is_that_into_a_folder(folder, bucket, tmp_path, capsys, monkeypatch):
  order = []
  for name in ('put', 'put_file'):
    original = getattr(buckets, name)
    monkeypatch.setattr(buckets, name, lambda url, content, original=original: (
      order.append(url.name), original(url, content)))
  with mesh_of():
    command.main(['export', f'--from={folder}', f'--to={bucket}'])
    gptjax.save_pretrained(*gptjax.load(folder), tmp_path / 'out')
  assert str(bucket) in capsys.readouterr().out
  assert order[-2:] == ['model.safetensors', 'config.json']
  assert access.names(bucket) == sorted(path.name for path in (tmp_path / 'out').iterdir())
  for name in access.names(bucket):
    assert access.read(bucket / name) == (tmp_path / 'out' / name).read_bytes()
  assert not list(cache.root().glob('outgoing/*/*/*'))


@pytest.mark.first_cases(1)
def test_half_of_an_export_does_not_load_and_an_old_one_stays_whole(folder, bucket, served, monkeypatch):
  with mesh_of():
    model, tokenizer = gptjax.load(folder)
    files, params = export.folder_files(model, tokenizer), nnx.to_pure_dict(nnx.state(model))
    def stop(url, path):
      raise KeyboardInterrupt
    with monkeypatch.context() as patched:
      patched.setattr(spool, 'put_file', stop)
      with pytest.raises(KeyboardInterrupt):
        export.write_folder(files, params, str(bucket), {'step': '1'})
    assert access.names(bucket) and 'config.json' not in access.names(bucket)
    with pytest.raises(InputError, match='has no weights'):
      gptjax.load(str(bucket))
    export.write_folder(files, params, str(bucket), {'step': '1'})
    assert export.exported_facts(bucket)['step'] == '1'
    with monkeypatch.context() as patched:
      patched.setattr(spool, 'put_file', stop)
      with pytest.raises(KeyboardInterrupt):
        export.write_folder(files, params, str(bucket), {'step': '2'})
    assert_equal(gptjax.load(str(bucket))[0], model)
    assert export.exported_facts(bucket)['step'] == '1'
    export.write_folder(files, params, str(bucket), {'step': '2'})
    assert export.exported_facts(bucket)['step'] == '2'
    access.write(bucket / 'config.json', b'{}')
    with pytest.raises(InputError, match='another model or tokenizer'):
      export.write_folder(files, params, str(bucket), {'step': '3'})


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(folder, bucket, monkeypatch):
  put(folder, bucket)
  download, replaced = buckets.download, []
  def replace_meanwhile(url, path, size, on_bytes=lambda chunk: None):
    download(url, path, size, on_bytes)
    if not replaced:
      replaced.append(url)
      access.write(bucket / 'generation_config.json', b'{}')
  monkeypatch.setattr(buckets, 'download', replace_meanwhile)
  copy = cache.folder(bucket)
  names = {path.name for path in folder.iterdir()}
  assert {path.name for path in copy.iterdir()} == {*names, 'generation_config.json'}
  assert load_file(copy / 'model.safetensors').keys() == load_file(folder / 'model.safetensors').keys()


def test_a_new_run_replaces_the_tokenizer_of_one_that_was_killed_early(bucket, tmp_path, capsys):
  training.train('bpe', 260, ['the cat sat'], progress=False).save(tmp_path / 'first')
  training.train('char', None, ['the dog'], progress=False).save(tmp_path / 'second')
  first, second = (loading.load(str(tmp_path / name)) for name in ('first', 'second'))
  for workdir in (bucket, tmp_path / 'run'):
    access.make_folder(workdir)
    save_tokenizer(first, workdir)
    save_tokenizer(second, workdir)
    assert access.names(workdir / 'tokenizer') == sorted(saved_files(second))
    save_corpus_tokenizer(tmp_path / 'first', workdir)
    assert loading.load(str(workdir / 'tokenizer')).digest == first.digest
    access.write(workdir / 'config.json', b'{}')
    save_corpus_tokenizer(tmp_path / 'second', workdir)  # the run has one
    assert loading.load(str(workdir / 'tokenizer')).digest == first.digest
  assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == [
    'config.json', 'tokenizer', 'tokenizer.replaced', 'tokenizer.replaced-2']
  assert capsys.readouterr().err.count('is not the tokenizer of this run: moved to') == 2


def test_a_milestone_that_is_not_whole_does_not_hide_its_checkpoint(bucket, tmp_path):
  for workdir in (bucket, tmp_path / 'run'):
    for name in ('checkpoints/10', 'milestones/5', 'checkpoints/5'):
      access.make_folder(tmp_path / 'run' / name)
      access.write(paths.below(workdir, f'{name}/manifest.json'), b'{}')
    for name in ('milestones/10', 'milestones/20'):
      access.make_folder(tmp_path / 'run' / name)
      access.write(paths.below(workdir, f'{name}/state'), b'x')
    assert saved_weights(workdir) == {5: paths.below(workdir, 'milestones/5'),
                                      10: paths.below(workdir, 'checkpoints/10')}


@pytest.mark.first_cases(1)
def test_the_tokenizer_of_a_run_is_written_again_unless_it_is_known_to_be_whole(folder, bucket):
  with mesh_of():
    tokenizer = gptjax.load(folder)[1]
  save_tokenizer(tokenizer, bucket)
  names = access.names(bucket / 'tokenizer')
  access.remove(bucket / 'tokenizer' / names[0])  # as if the process had been killed
  save_tokenizer(tokenizer, bucket)
  assert access.names(bucket / 'tokenizer') == names
  access.write(bucket / 'config.json', b'{}')
  access.write(bucket / 'tokenizer' / names[0], b'x')
  save_tokenizer(tokenizer, bucket)
  assert access.read(bucket / 'tokenizer' / names[0]) == b'x'
