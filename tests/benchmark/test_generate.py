"""The generation benchmark: gates agree with the measurements, and contenders generate as many tokens."""

import json

import numpy as np
import pytest
from conftest import ROOT, mesh_of

from gptjax.benchmark.subjects import generate


@pytest.mark.parametrize('one, eight, read, holds', [
  (1.0, 2.0, 0.5, [True, True, True, True]), (1.1, 2.0, 0.5, [False, True, True, True]),
  (1.0, 2.0, 0.6, [True, False, True, True]), (1.0, 2.6, 0.5, [True, True, False, True]),
  (0.9, 2.5, 0.5, [True, True, True, False])])
def test_gates(one, eight, read, holds):
  seconds = {generate.OURS: {generate.ONE: [one] * 3, generate.EIGHT: [eight] * 3, generate.READ: [read] * 3},
             generate.TRANSFORMERS: {
               generate.ONE: [1.0] * 3, generate.EIGHT: [2.5] * 3, generate.READ: [0.5] * 3}}
  checks = generate.make_gates(seconds, '124M', 'float32')
  assert [check['holds'] for check in checks] == holds
  assert [check['found'] for check in checks] == pytest.approx(
    [1 / one, 0.5 / read, 2.5 / eight, 8 * one / eight])


def test_stored_results_have_the_gates_of_their_seconds():
  paths = list((ROOT / 'docs' / 'benchmarks').glob('generate*.json'))
  assert paths
  for path in paths:
    found = json.loads(path.read_text())
    _, dtype, _ = found['rows'][0]['what'].split(', ')
    gates = generate.make_gates(found['details']['seconds'], '124M', dtype)
    assert found['gates'][:len(gates)] == gates, path


@pytest.mark.ci
def test_both_contenders_generate_the_stated_number_of_tokens():
  pytest.importorskip('transformers')
  config = generate.make_config('124M', 'float32')
  for field, value in dict(n_layer=1, n_head=2, n_embd=8, n_ctx=600, n_vocab=50).items():
    setattr(config.model, field, value)
  with mesh_of():
    for tasks, _ in (generate.gptjax_tasks(config), generate.transformers_tasks(config)):
      for name, batch in generate.BATCH.items():
        written = tasks[name]()
        assert written.shape == (batch, generate.NEW) and np.issubdtype(written.dtype, np.integer)
      tasks[generate.READ]()
