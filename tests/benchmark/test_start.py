"""The start benchmark: it measures a real start, and reports why a start fails."""

import json
from pathlib import Path

import pytest

from gptjax.benchmark.subjects import start


def test_a_failed_start_is_reported(tmp_path):
  with pytest.raises(ValueError, match=r'(?s)no step after \d+ s.*nothing.py'):
    start.time_to_first_step('configs/nothing.py', tmp_path, 'a')


@pytest.mark.slow
def test_a_warm_cache_saves_compiling(tmp_path):
  start.main(['--turns=1', f'--out={tmp_path}/found.json'])
  cold, warm, floor = json.loads(Path(f'{tmp_path}/found.json').read_text())['rows']
  assert floor['median'] < warm['median'] < cold['median']


@pytest.mark.slow
def test_a_run_of_two_processes_starts(tmp_path):
  start.main(['--turns=1', '--processes=2', f'--out={tmp_path}/found.json'])
  rows = json.loads((tmp_path / 'found.json').read_text())['rows']
  assert [row['what'] for row in rows] == ['start to first step, quickstart, 2 processes'] * 3
