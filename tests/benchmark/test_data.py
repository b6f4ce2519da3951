"""The data benchmark: its gates agree with the measurements, and the command runs with default flags."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, SHARED

from gptjax.benchmark.subjects import data
from gptjax.errors import InputError


def benchmark(*flags):
  return subprocess.run([sys.executable, '-m', 'gptjax.benchmark', 'data', *flags], cwd=ROOT, text=True,
                        capture_output=True, check=False)


@pytest.mark.parametrize('one, two, reading, late, host, missed', [
  (12.5, 7.0, 30e6, 1.0, 1.0, None), (15.0, 8.0, 30e6, 1.0, 1.0, 0), (12.5, 7.5, 30e6, 1.0, 1.0, 1),
  (12.5, 7.0, 19e6, 1.0, 1.0, 2), (12.5, 7.0, 30e6, 1.2, 1.0, 3), (12.5, 7.0, 30e6, 1.0, 1.2, 4)])
@pytest.mark.parametrize('slower', ['pipeline', 'plain'])
def test_gates(one, two, reading, late, host, missed, slower):
  seconds = {data.ENCODE: [10.0] * 3, data.ONE: [one] * 3, data.TWO: [two] * 3}
  read = {'pipeline': [90e6] * 3, 'plain': [90e6] * 3, 'first': [0.1] * 3, 'late': [0.1 * late] * 3,
          'host': [0.1 * host] * 3, slower: [reading] * 3}
  checks = data.make_gates(seconds, read)
  assert [check['holds'] for check in checks] == [i != missed for i in range(5)]
  assert [check['found'] for check in checks] == pytest.approx(
    [10 / one, one / two, reading / 1e6, late, host])


@pytest.mark.slow
def test_the_command_runs_with_defaults_and_writes_its_results(tmp_path):
  done = benchmark('--megabytes=0.4', '--turns=1', '--vocab_size=300', f'--out={tmp_path}/found.json')
  assert done.returncode == 0 and not done.stderr, done.stderr
  found = json.loads((tmp_path / 'found.json').read_text())
  assert found.keys() == {'benchmark', 'machine', 'rows', 'gates', 'details'}
  assert {'gptjax', 'numpy', 'tiktoken'} <= found['machine']['versions'].keys()
  assert 0.4 <= found['details']['megabytes'] < 2 and len(found['gates']) == 5
  assert all(len(turns) == 1 and min(turns) > 0 for turns in found['details']['seconds'].values())
  for check in found['gates']:
    assert f'{check["found"]:.2f}' in next(line for line in done.stdout.splitlines() if check['what'] in line)


@pytest.mark.parametrize('flags, says', [
  (['--source=text:/nowhere'], 'no file has this name'), (['--tokenizer=gpt2:/nowhere'], '/nowhere'),
  pytest.param([f'--tokenizer=gpt1:{SHARED}/bpe/gpt1'], 'not a byte-level BPE', marks=pytest.mark.skipif(
    not SHARED.is_dir(), reason=f'needs the data folder {SHARED}'))])
def test_unusable_sources_and_tokenizers_are_refused(flags, says):
  with pytest.raises(InputError, match=says):
    data.main(['--megabytes=0.2', *flags])
