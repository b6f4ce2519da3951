"""Commands on a machine with libtpu and no TPU: its complaints are kept out, and no TPU is hidden."""

import os

import pytest

from gptjax.parallel import libtpu


@pytest.mark.parametrize('installed, devices, told', [
  (True, [], True), (False, [], False), (True, [('0x8086', '0x1237')], True),
  (True, [('0x1ae0', '0x0042')], True), (True, [('0x8086', '0x1237'), ('0x1ae0', '0x0063')], False)])
def test_libtpu_is_told_only_where_there_is_no_tpu(tmp_path, monkeypatch, installed, devices, told):
  monkeypatch.setattr(libtpu.importlib.util, 'find_spec', lambda name: object() if installed else None)
  for name in libtpu.NO_TPU_VARIABLES:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(os, 'environ', dict(os.environ))
  for i, (vendor, kind) in enumerate(devices):
    (tmp_path / f'{i}').mkdir()
    (tmp_path / f'{i}' / 'vendor').write_text(f'{vendor}\n')
    (tmp_path / f'{i}' / 'device').write_text(f'{kind}\n')
  libtpu.silence_without_tpu(tmp_path)
  assert [os.environ.get(name) for name in libtpu.NO_TPU_VARIABLES] == (
    list(libtpu.NO_TPU_VARIABLES.values()) if told else [None] * len(libtpu.NO_TPU_VARIABLES))
