"""gptjax doctor names what is missing, and always ends well."""

import subprocess
import sys

import object_storage
import pytest
from conftest import ENVIRONMENT, ROOT
from packaging.requirements import Requirement

from gptjax.cli import bucket_rows, doctor
from gptjax.cli.doctor import BAD, GOOD


def install(folder, name, version, requires=(), extras=()):
  """What pip would leave of a package that has no modules."""
  place = folder / f'{name}-{version}.dist-info'
  place.mkdir(parents=True)
  lines = [f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}',
           *(f'Provides-Extra: {extra}' for extra in extras), *(f'Requires-Dist: {one}' for one in requires)]
  (place / 'METADATA').write_text('\n'.join(lines) + '\n')


@pytest.fixture
def installed(tmp_path, monkeypatch):
  """Packages of which some fit and some do not."""
  monkeypatch.syspath_prepend(tmp_path)
  install(tmp_path, 'gptjax', '9', ['one>=1,<2', 'two>=1', 'absent', 'gpu-library; extra == "fast"',
                                    'one>=1; extra == "slow"', 'two[plugin]; extra == "deep"'],
          ['fast', 'slow', 'deep'])
  install(tmp_path, 'one', '1.5')
  install(tmp_path, 'two', '0.9', ['driver; extra == "plugin"'], ['plugin'])


@pytest.mark.parametrize('requirement, says', [
  ('one', ''), ('one>=1,<2', ''), ('one<1', 'one is 1.5, not <1'), ('absent', 'absent is not installed'),
  ('two[plugin]', 'driver is not installed')])
def test_what_is_wrong_with_a_requirement(requirement, says, installed):
  assert doctor.fault(Requirement(requirement)) == says


def test_packages_that_are_missing_or_too_old_are_named(installed):
  rows = {row.name: row for row in doctor.software()}
  assert rows['one'] == ('one', '1.5', GOOD)
  assert rows['two'].mark == BAD and rows['two'].text == "two is 0.9, not >=1: pip install 'two>=1'"
  assert rows['absent'].mark == BAD and 'absent is not installed' in rows['absent'].text
  assert 'gpu-library' not in rows, 'of an extra'


def test_what_is_missing_for_an_extra_is_named_with_the_line_that_installs_it(installed):
  rows = {row.name: row for row in doctor.extras()}
  assert rows['slow'].mark == GOOD
  assert rows['fast'] == ('fast', "gpu-library is not installed: pip install 'gptjax[fast]'", BAD)
  assert rows['deep'].mark == BAD and 'driver' in rows['deep'].text


def test_an_extra_of_many_packages_takes_one_line(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  needed = [f'absent{i}; extra == "{extra}"' for extra, n in (('four', 4), ('five', 5)) for i in range(n)]
  install(tmp_path, 'gptjax', '9', needed, ['four', 'five'])
  rows = {row.name: row.text for row in doctor.extras()}
  assert 'absent3 is not installed: pip' in rows['four']
  assert 'absent2 is not installed; and 2 more packages: pip' in rows['five']
  assert 'absent3' not in rows['five']


def test_a_process_of_several_is_told_its_place(monkeypatch):
  assert 'process' not in {row.name for row in doctor.devices()}
  for name, value in {'STEP_NODELIST': 'node[7-8]', 'STEP_NUM_TASKS': '8', 'STEP_ID': '0', 'PROCID': '3',
                      'JOB_ID': '7', 'LOCALID': '3', 'STEP_TASKS_PER_NODE': '4(x2)'}.items():
    monkeypatch.setenv(f'SLURM_{name}', value)
  row = {row.name: row for row in doctor.devices()}['process']
  assert row == ('process', '3 of 8, because of SLURM_STEP_NUM_TASKS=8; process 0 is at node7:61447', GOOD)


def test_each_kernel_can_run_or_has_a_reason():
  from gptjax.model import attention
  rows = {row.name: row for row in doctor.kernels()}
  assert rows.keys() == {*attention.KERNELS}
  assert rows['xla'].mark == GOOD and rows['auto'].text == 'selects xla'
  assert rows['splash'].text == 'runs on a TPU, and this is a CPU'


def test_a_tokenizer_cache_is_found(tmp_path, monkeypatch):
  from gptjax.data.tokenizers import loading
  monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
  assert doctor.gpt2_tokenizer().mark != GOOD
  import hashlib
  for name in loading.GPT2_SHA256:
    (tmp_path / hashlib.sha1((loading.GPT2_URL + name).encode()).hexdigest()).touch()
  assert doctor.gpt2_tokenizer() == ('GPT-2 tokenizer', str(tmp_path), GOOD)


def test_buckets_name_the_package_the_credentials_and_the_service(monkeypatch):
  with object_storage.in_process(object_storage.gcs('buck')):
    (gs, s3) = doctor.buckets()
  assert gs.mark == GOOD and 'gcsfs 20' in gs.text and gs.text.endswith(' answers')
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', 'http://127.0.0.1:9')
  (gs, s3) = doctor.buckets()
  assert gs.mark == BAD and 'http://127.0.0.1:9 cannot be reached (' in gs.text
  monkeypatch.setitem(bucket_rows.PACKAGES, 's3', ('not-a-package', 's3'))
  (gs, s3) = doctor.buckets()
  assert s3 == ('s3://', "not-a-package is not installed: pip install 'gptjax[s3]'", BAD)


def test_a_section_that_fails_does_not_end_the_report(monkeypatch, capsys):
  def fails():
    raise OSError('no such device')
  for name in ('software', 'devices', 'kernels', 'caches', 'buckets', 'disk', 'extras'):
    monkeypatch.setattr(doctor, name, fails)
  doctor.main([])
  said = capsys.readouterr().out
  assert said.count('OSError: no such device') == 7


@pytest.mark.ci
def test_the_whole_command_ends_well_even_without_devices():
  done = subprocess.run([sys.executable, '-m', 'gptjax', 'doctor'], cwd=ROOT, capture_output=True, text=True,
                        env={**ENVIRONMENT, 'JAX_PLATFORMS': 'tpu'}, timeout=120)
  assert done.returncode == 0 and '\x1b' not in done.stdout
  for title in ('software', 'devices', 'attention kernels', 'caches', 'buckets', 'disk', 'extras'):
    assert f'{title}\n' in done.stdout
  assert 'free' in done.stdout and 'not known  JAX finds no devices with JAX_PLATFORMS=tpu' in done.stdout
  assert 'Error:' not in done.stdout


def test_a_plugin_without_its_device_is_one_line(caplog):
  """A node without a GPU, for instance the one from which jobs are submitted, with the packages for GPUs."""
  import logging

  from gptjax.parallel import jax_settings
  jax_settings.import_jax()
  try:
    raise RuntimeError('operation cuInit(0) failed')
  except RuntimeError:
    logging.getLogger('jax._src.xla_bridge').exception(
      'Jax plugin configuration error: Exception when calling %s.initialize()', 'jax_plugins.xla_cuda12')
  record, = caplog.records
  assert not record.exc_info and record.getMessage() == (
    "JAX's plugin jax_plugins.xla_cuda12 does not start, which is normal on a machine without its devices: "
    'RuntimeError: operation cuInit(0) failed')
