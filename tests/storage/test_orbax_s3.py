"""Orbax on s3://: the same bits back, the same identity for all requests, and no other path is affected."""

import http.server
import itertools
import json
import threading

import hosts
import jax
import numpy as np
import object_storage
import orbax.checkpoint as ocp
import pytest
from conftest import mesh_of
from orbax.checkpoint._src.serialization import tensorstore_utils
from storage.test_bucket_checkpoint import NO_FAULTS, restored, same, save
from storage.test_checkpoint import state_on, target_on

from gptjax.errors import Denied, InputError
from gptjax.storage import checkpoint, manifest, orbax_io, orbax_s3, step_folders
from gptjax.storage.files import buckets, paths

NUMBERS = itertools.count()
KEYS = 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_PROFILE'


@pytest.fixture(scope='module')
def served():
  with object_storage.in_process(object_storage.s3('buck')) as faults:
    yield faults


@pytest.fixture
def folder(served, monkeypatch):
  """`checkpoints` of a run of its own, without faults."""
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  vars(served).update(NO_FAULTS)
  yield paths.location(f's3://buck/run{next(NUMBERS)}/checkpoints')
  vars(served).update(NO_FAULTS)


@pytest.mark.ci
def test_a_state_comes_back_on_another_mesh_and_damage_is_found(folder):
  save(folder, 3, 5)
  step, state, said = restored(folder, {'data': 2, 'fsdp': 2})
  assert step == 5 and not said
  same(state, 5)
  files = buckets.find(folder / '5' / 'state')
  largest = max(files, key=lambda name: files[name].size)
  buckets.put(folder / '5' / 'state' / largest, b'x' * files[largest].size)
  step, state, said = restored(folder)
  assert step == 3 and len(said) == 1 and 'checkpoint 5 is damaged' in said[0]
  same(state, 3)


@pytest.mark.ci
def test_no_object_is_larger_than_s3_takes(folder, monkeypatch):
  monkeypatch.setattr(orbax_s3, 'CHUNK', 1 << 10)
  largest = max(x.nbytes for x in jax.tree.leaves(state_on({})))
  save(folder, 3, sizes={'fsdp': 2})
  step, state, said = restored(folder)
  assert step == 3 and not said and largest > 4 << 10
  same(state, 3)
  metadata = json.loads(buckets.read(folder / '3' / 'state' / 'array_metadatas' / 'process_0'))
  shapes = [entry['array_metadata']['chunk_shape'] for entry in metadata['array_metadatas']]
  assert max(4 * np.prod(shape) for shape in shapes) <= 1 << 10


def test_weights_alone_are_read_with_and_without_devices(folder):
  save(folder, 3)
  with mesh_of(fsdp=2):
    params = target_on({'fsdp': 2}).params
    there = checkpoint.load_weights(folder / '3', manifest.read_manifest(folder / '3'), params)
  here = checkpoint.read_weights(folder / '3', params)
  for a, b, c in zip(*map(jax.tree.leaves, (there, here, state_on({}, seed=3).params)), strict=True):
    np.testing.assert_array_equal(np.asarray(a), b)
    np.testing.assert_array_equal(b, np.asarray(c))


@pytest.mark.ci
def test_an_interrupted_save_leaves_no_checkpoint(folder, served, monkeypatch):
  save(folder, 3)
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 1)
  refused = {'fail': 1.0, 'code': 400, 'path': 'checkpoints/5/state/manifest.ocdbt', 'method': 'PUT'}
  with pytest.raises(InputError, match='cannot save checkpoint 5'):
    save(folder, 5, on_step=lambda step: vars(served).update(refused))
  vars(served).update(NO_FAULTS)
  assert not buckets.entry(folder / '5' / manifest.MANIFEST)
  assert restored(folder)[0] == 3 and step_folders.steps(folder) == [3]


@pytest.mark.parametrize('directory', ['gs://buck/run/state', '/tmp/s3/run/state', '/s3://buck/run'])
@pytest.mark.parametrize('arguments', [{}, {'name': '_sharding', 'use_ocdbt': False}])
def test_the_specifications_of_other_paths_are_those_of_orbax(folder, directory, arguments):
  orbax_s3.prepare(folder)
  changed = tensorstore_utils.build_kvstore_tspec
  assert changed.__name__ == 'build_kvstore_tspec' and changed.__wrapped__ is not changed
  assert changed(directory, **arguments) == changed.__wrapped__(directory, **arguments)
  orbax_s3.prepare(folder)
  assert tensorstore_utils.build_kvstore_tspec is changed, 'it is changed once'


@pytest.mark.parametrize('arguments', [
  {}, {'ocdbt_process_spec': '', 'name': 'params/wte'}, {'name': '_sharding', 'use_ocdbt': False}])
def test_a_specification_differs_from_that_of_gs_in_its_driver_alone(folder, arguments):
  orbax_s3.prepare(folder)
  def of(scheme):
    return tensorstore_utils.build_kvstore_tspec(f'{scheme}://buck/run/state', **arguments)
  added = set(orbax_s3.driver(folder)) - {'driver'}
  def as_gs(spec):
    if spec['driver'] == 's3':
      return {**{name: part for name, part in spec.items() if name not in added}, 'driver': 'gcs'}
    return {**spec, 'base': as_gs(spec['base'])}
  assert as_gs(of('s3')) == of('gs') and 'endpoint' in added


@pytest.mark.parametrize('version', ['0.11.40', '0.13.0', '1.0'])
def test_a_version_of_orbax_that_is_not_tested_is_refused_in_one_line(folder, served, monkeypatch, version):
  monkeypatch.setattr(ocp, '__version__', version)
  served.requests.clear()
  for refused in (lambda: orbax_io.check_supported(folder.parent), lambda: save(folder, 3),
                  lambda: checkpoint.read_weights(folder / '3', {})):
    with pytest.raises(InputError, match=f'{version}: install a version that is tested') as error:
      refused()
    assert '\n' not in str(error.value)
  assert not [path for method, path, _ in served.requests if 'state' in path]


def test_a_private_function_that_is_gone_is_refused_too(folder, monkeypatch):
  monkeypatch.delattr(tensorstore_utils, 'build_kvstore_tspec')
  with pytest.raises(InputError, match=f'this is {ocp.__version__}'):
    orbax_io.check_supported(folder.parent)


def test_what_tensorstore_may_not_read_is_refused_at_the_start(folder, served):
  orbax_io.check_supported(folder.parent)
  vars(served).update(fail=1.0, code=403, path='absent')
  with pytest.raises(Denied, match='cannot be read by TensorStore'):
    orbax_io.check_supported(folder.parent)


@pytest.fixture
def credentials_server():
  """The address of a server that gives credentials to containers."""
  class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
      pass

    def do_GET(self):
      content = json.dumps({'AccessKeyId': 'OFCONTAINER', 'SecretAccessKey': 's', 'Token': 't',
                            'Expiration': '2100-01-01T00:00:00Z'}).encode()
      self.send_response(200)
      self.send_header('Content-Length', str(len(content)))
      self.end_headers()
      self.wfile.write(content)
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f'http://127.0.0.1:{server.server_address[1]}/credentials'
  server.shutdown()
  server.server_close()


@pytest.mark.parametrize('source, key', [
  ('environment', 'OFENVIRONMENT'), ('file', 'OFDEFAULT'), ('profile', 'OFPROFILE'), ('config', 'OFCONFIG'),
  ('container', 'OFCONTAINER')])
def test_arrays_and_files_are_written_under_one_identity(served, folder, monkeypatch, tmp_path, source, key,
                                                         credentials_server):
  for name in KEYS:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'credentials'))
  monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'config'))
  line = 'aws_access_key_id = {}\naws_secret_access_key = s\n'
  if source in ('file', 'profile'):
    (tmp_path / 'credentials').write_text(
      f'[default]\n{line.format("OFDEFAULT")}[work]\n{line.format("OFPROFILE")}')
  if source == 'profile':
    monkeypatch.setenv('AWS_PROFILE', 'work')
  if source == 'config':  # with the address of the service too
    monkeypatch.delenv('AWS_ENDPOINT_URL')
    (tmp_path / 'config').write_text(f'[default]\n{line.format("OFCONFIG")}'
                                     f'endpoint_url = {served.environment["AWS_ENDPOINT_URL"]}\n')
  if source == 'environment':
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'OFENVIRONMENT')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 's')
  if source == 'container':
    monkeypatch.setenv('AWS_CONTAINER_CREDENTIALS_FULL_URI', credentials_server)
  object_storage.forget_clients()
  served.keys.clear()
  try:
    orbax_io.check_supported(folder.parent)
    assert served.keys == {key}, 'of TensorStore'
    buckets.put(folder.parent / 'a', b'')
    assert served.keys == {key}
  finally:
    monkeypatch.undo()
    object_storage.forget_clients()


def test_credentials_that_tensorstore_has_no_name_for_are_refused(folder, monkeypatch):
  service = buckets.s3_service(folder)
  monkeypatch.setattr(buckets, 's3_service', lambda url: service._replace(credentials='custom-process'))
  with pytest.raises(InputError, match=r'of the kind custom-process: put them into AWS_ACCESS_KEY_ID'):
    orbax_io.check_supported(folder.parent)


@pytest.mark.parametrize('endpoint, named', [
  ('https://s3.amazonaws.com', False), ('https://s3.eu-west-3.amazonaws.com', False),
  ('https://s3.cn-north-1.amazonaws.com.cn', True), ('https://storage.example.org', True)])
def test_tensorstore_finds_the_region_of_a_bucket_of_amazon(folder, monkeypatch, endpoint, named):
  service = buckets.s3_service(folder)._replace(endpoint=endpoint, region=None)
  monkeypatch.setattr(buckets, 's3_service', lambda url: service)
  found = orbax_s3.driver(folder)
  expected = (endpoint, 'us-east-1') if named else (None, None)
  assert (found.get('endpoint'), found.get('aws_region')) == expected


@pytest.mark.slow
def test_several_processes_write_the_checkpoints_of_a_local_run(served, folder, corpus_folder, tmp_path):
  flags = '--config.train.steps=10', '--config.mesh.fsdp=2'
  for name, more in (('here', ()), ('there', [f'--workdir={folder.parent}'])):
    running = hosts.start(corpus_folder, tmp_path / name, 2, *flags, *more, env=served.environment)
    ended = hosts.wait(running, tmp_path / name)
    assert [code for code, _ in ended] == [0, 0], ended
  local = tmp_path / 'here' / 'checkpoints'
  assert step_folders.steps(folder) == step_folders.steps(local)
  assert manifest.read_manifest(folder / '10')['arrays'] == manifest.read_manifest(local / '10')['arrays']
  assert not (tmp_path / 'there').exists()
