"""The benchmark of cleaning: it measures this version, and another one beside it."""

import pytest
from conftest import ROOT

from gptjax.benchmark.subjects import clean


@pytest.mark.ci
def test_two_versions_are_measured(capsys):
  clean.main(['--turns=1', '--megabytes=0.1', f'--against={ROOT}'])
  printed = capsys.readouterr().out
  assert 'MB of python:' in printed
  rows = [line.split() for line in printed.splitlines() if line.startswith((clean.HERE, clean.OTHER))]
  assert len(rows) == 2
  for *_, filters, signatures, both, least, most in rows:
    assert 0 < float(filters) < 1e4 and float(least) <= float(both) <= float(most) and float(signatures) < 1e4
  assert 'speed relative to the other: ' in printed
