"""The limits of a CPU: the functions that time matmuls, and the shares in the rows."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from gptjax.benchmark import interleave, limits, matmuls, sizes
from gptjax.benchmark.limits import MEMORY, TORCH, XLA
from gptjax.benchmark.matmuls import Matmul
from gptjax.benchmark.results import OURS
from gptjax.benchmark.subjects import generate, train
from gptjax.config import resolve as configs


def test_xlas_matmuls_have_the_forms_of_the_model(monkeypatch):
  monkeypatch.setattr(limits, 'serve', lambda facts, answer: answer(0))
  monkeypatch.setattr(limits.cpu, 'configure_devices', lambda: None)
  lowered = []
  def measured(matmul, make):
    x, y = make(matmul)[0]()
    lowered.append(limits._xla_product().lower(x, y, layout=matmul.layout, result=matmul.result).as_text())
    return 0.0
  monkeypatch.setattr(limits, 'mean_seconds', measured)
  sums = Matmul(1, 'km,kn', 3, 64, 16, 8, 'bfloat16', 'float32')
  with ThreadPoolExecutor(1) as thread:  # whose mesh ends with it
    thread.submit(limits.serve_worker, limits.XLA, lambda: {'task': [sums]}).result()
  assert 'optimization_barrier' in lowered[0]


@pytest.mark.parametrize('make', [limits.xla_matmul, limits.torch_matmul])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_both_libraries_multiply_each_layout(make, dtype):
  if make == limits.torch_matmul:
    pytest.importorskip('torch')
  for b, layout in ((1, 'mk,kn'), (1, 'mk,nk'), (1, 'km,kn'), (3, 'mk,kn'), (3, 'mk,nk'), (3, 'km,kn')):
    for m, n in ((5, 7), (7, 5)):
      matmul = Matmul(2, layout, b, m, 4, n, dtype, 'float32')
      operands, multiply = make(matmul)
      product = multiply(*operands())
      assert {m, n} == set(product.shape[-2:]) and float(product.sum()) == b * m * n * 4
      assert limits.mean_seconds(matmul, make) > 0


def test_bandwidth_is_that_of_the_bytes_that_move():
  for moved, run in limits.bandwidth_kernels(1 << 20).values():
    assert moved in (1 << 20, 3 << 20) and limits.bandwidth(moved, run) > 0


@pytest.mark.ci
@pytest.mark.parametrize('name', [XLA, TORCH])
def test_workers_answer_with_the_seconds_of_each_matmul(name):
  if name == TORCH:
    pytest.importorskip('torch')
  command = [sys.executable, '-m', 'gptjax.benchmark', 'train', '--size=tiny', '--worker', name]
  (facts, [answer]), = interleave.interleaved({name: command}, 1, 1).values()
  config = sizes.make_config('tiny')
  configs.resolve(config, '')
  needed = matmuls.of_step(config)
  assert [Matmul(*each) for each in facts['matmuls'][train.STEP]] == needed
  assert len(answer[train.STEP]) == len(needed) and min(answer[train.STEP]) > 0


def test_shares_are_medians_of_the_turns(capsys):
  step = {'step': [Matmul(1, 'mk,kn', 1, 10, k, 10, 'float32', 'float32') for k in (10, 20)]}
  answers = {OURS: ({}, [{'seconds': 1.0}, {'seconds': 2.0}, {'seconds': 4.0}]),
             XLA: ({'matmuls': step}, [{'step': [0.5, 0.3]}, {'step': [1.0, 0.5]}, {'step': [1.0, 2.6]}])}
  rows = [{'what': 'training', 'who': OURS}, {'what': 'training', 'who': 'torch'}]
  ours, other = train.with_limits(rows, answers)
  assert ours['of_products'] == pytest.approx(0.8) and 'xla_of_best' not in ours and other == rows[1]
  answers[TORCH] = {'matmuls': step}, [{'step': [0.42, 0.4]}, {'step': [9.0, 0.2]}, {'step': [9.0, 9.0]}]
  ours, _ = train.with_limits(rows, answers)
  assert ours['xla_of_best'] == pytest.approx(0.9)
  assert limits.described(ours) == "80 % of XLA's matmuls, which reach 90 % of the best library"
  assert limits.described(other) == ''
  gate, = limits.gates([ours, other])
  assert not gate['holds'] and gate['what'] == "training, share of XLA's matmuls"
  limits.print_answers(answers)
  assert capsys.readouterr().out.startswith(f'{XLA}, step: 1.5 s, 0.0 GFLOP/s')
  assert train.with_limits(rows, {}) == rows == train.with_limits(rows, {OURS: answers[OURS]})


def test_generation_is_compared_with_the_bandwidth():
  turn = {generate.ONE: 64.0, generate.EIGHT: 64.0, generate.READ: 2.0}
  alone = {generate.ONE: [30.0, 18.0], generate.EIGHT: [16.0], generate.READ: [0.5, 1.0]}
  answers = {OURS: ({'weights': 80, 'cache': 10}, [turn]), MEMORY: ({}, [{'read': 100.0, 'update': 90.0}]),
             XLA: ({}, [alone])}
  rows = [{'what': f'generation 124M, float32, {task}', 'who': OURS} for task in turn]
  one, eight, read = generate.with_limits(rows, answers)
  assert (one['of_bandwidth'], eight['of_bandwidth'], read['of_products']) == (0.9, 1.6, 0.75)
  assert (one['of_products'], eight['of_products']) == (0.75, 0.25)
  assert limits.described(one) == "90 % of the bandwidth, 75 % of XLA's matmuls"
  gate, = limits.gates([one], 'of_bandwidth')
  assert gate['holds'] and gate['what'].endswith('share of the bandwidth')
  del answers[MEMORY]  # its worker was lost: the share of the matmuls has no target
  assert not limits.gates(generate.with_limits(rows, answers)[:1], 'of_bandwidth')


@pytest.mark.parametrize('only_cpu, skipped, names', [
  (True, False, limits.MATMULS), (True, True, ()), (False, False, ())])
def test_limits_are_those_of_cpus(monkeypatch, only_cpu, skipped, names):
  monkeypatch.setattr(limits.cpu, 'is_only_device', lambda: only_cpu)
  monkeypatch.setattr(limits, 'find_spec', lambda name: True)
  assert limits.available(SimpleNamespace(no_limits=skipped)) == names
