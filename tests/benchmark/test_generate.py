"""The generation benchmark: gates agree with the measurements, and contenders generate as many tokens."""

import numpy as np
import pytest
from conftest import mesh_of

from gptjax.benchmark.subjects import generate


@pytest.mark.parametrize('one, eight, read, holds', [
  (1.0, 2.0, 0.5, [True, True, True]), (1.1, 2.0, 0.5, [False, True, True]),
  (1.0, 2.0, 0.6, [True, False, True]), (1.0, 2.7, 0.5, [True, True, False])])
def test_gates(one, eight, read, holds):
  seconds = {generate.OURS: {generate.ONE: [one] * 3, generate.EIGHT: [eight] * 3, generate.READ: [read] * 3},
             generate.TRANSFORMERS: {
               generate.ONE: [1.0] * 3, generate.EIGHT: [9.0] * 3, generate.READ: [0.5] * 3}}
  checks = generate.make_gates(seconds)
  assert [check['holds'] for check in checks] == holds
  assert [check['found'] for check in checks] == pytest.approx([1 / one, 0.5 / read, 8 * one / eight])


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
