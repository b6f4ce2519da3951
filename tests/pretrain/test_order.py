"""Order: metrics are read as soon as no device waits for it; the step compiles while the state is made."""

import functools
import threading

import jax
import pytest
from conftest import tiny_config

from gptjax.data.corpus import pipeline
from gptjax.kernels import cpu, xla_presets
from gptjax.pretrain import loop
from gptjax.report.telemetry import read_metrics

LIMIT = 120  # seconds after which what should happen meanwhile does not


@pytest.fixture
def config(corpus_folder):
  return tiny_config(**{
    'model.n_vocab': 290, 'data.corpus': str(corpus_folder), 'train.steps': 5, 'eval.every_steps': 3,
    'log.tensorboard': False, 'log.sample_tokens': 0, 'mesh.data': 8})


@pytest.fixture
def order(config, tmp_path, monkeypatch):
  """A function that trains five steps and returns the order of calls, reads and evaluations."""
  events, begin_compiling = [], loop.begin_compiling

  def recorded(*args):
    compiled_step, at = begin_compiling(*args), iter(range(1, 6))
    return lambda: lambda *args: events.append(f'call {next(at)}') or compiled_step()(*args)

  def ordered(in_calling_thread):
    monkeypatch.setattr(loop, 'begin_compiling', recorded)
    monkeypatch.setattr(cpu, 'computes_in_calling_thread', lambda: in_calling_thread)
    monkeypatch.setattr(loop.console, 'log_step', lambda *args: events.append(f'read {args[3]}'))
    monkeypatch.setattr(loop, 'evaluate_if_due', lambda run, state, step, *rest: (
      loop.evaluation_due(run, step) and events.append('evaluate')))
    assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
    return ', '.join(events[events.index('call 1'):])
  return ordered


@pytest.mark.ci
def test_on_a_device_a_step_is_read_while_the_next_one_runs(order):
  assert order(in_calling_thread=False) == ('call 1, call 2, read 1, call 3, read 2, read 3, evaluate, '
                                            'call 4, call 5, read 4, read 5, evaluate')


@pytest.mark.ci
def test_where_a_call_returns_after_its_step_it_is_read_at_once(order):
  assert order(in_calling_thread=True) == ('call 1, read 1, call 2, read 2, call 3, read 3, evaluate, '
                                           'call 4, read 4, call 5, read 5, evaluate')


def compilations(monkeypatch):
  """A list of the compiler's options for each program that is compiled ahead of its first call."""
  found, compile_ = [], jax.stages.Lowered.compile
  monkeypatch.setattr(jax.stages.Lowered, 'compile', lambda lowered, compiler_options: (
    found.append(compiler_options) or compile_(lowered, compiler_options=compiler_options)))
  return found


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('beside', [True, False])
def test_the_step_compiles_while_the_state_is_made(config, tmp_path, monkeypatch, beside):
  """But not on simulated devices, whose threads the compiler takes."""
  began, made, waited = threading.Event(), threading.Event(), []
  initial_state, compile_ = loop.initial_state, jax.stages.Lowered.compile

  def making(*args):
    assert began.wait(LIMIT)
    state = initial_state(*args)
    made.set()
    return state

  def compiling(lowered, **options):
    began.set()
    waited.append(made.wait(LIMIT if beside else 1))
    return compile_(lowered, **options)

  if beside:
    monkeypatch.setattr(cpu, 'computes_while_compiling', lambda: True)
  monkeypatch.setattr(loop, 'initial_state', making)
  monkeypatch.setattr(jax.stages.Lowered, 'compile', compiling)
  assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
  assert waited == [beside]


@pytest.mark.parametrize('beside', [True, False])
def test_a_step_that_cannot_be_compiled_ends_the_run(config, tmp_path, monkeypatch, beside):
  """Where the compilation is waited for, at once: other processes would wait for the state of this one."""
  made, initial_state = [], loop.initial_state

  def fail(*args, **options):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED')

  monkeypatch.setattr(cpu, 'computes_while_compiling', lambda: beside)
  monkeypatch.setattr(loop, 'initial_state', lambda *args: made.append(1) or initial_state(*args))
  monkeypatch.setattr(jax.stages.Lowered, 'compile', fail)
  with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
    loop.pretrain(config, tmp_path / 'run')
  assert made == [1] * beside


@pytest.mark.ci
def test_a_run_with_tf_data_and_one_with_a_thread_have_the_same_losses(config, tmp_path, monkeypatch):
  config.log.every_steps = 1
  tf = pytest.importorskip('tensorflow')
  given, ranged = [], tf.data.Dataset.range
  # At once: else the batches that the import of TensorFlow lets pass depend on threads.
  monkeypatch.setattr(pipeline, '_soon_tf_batches', functools.partial(pipeline._tf_batches, tf))
  monkeypatch.setattr(tf.data.Dataset, 'range', lambda *args: given.append(args) or ranged(*args))
  for name, without, steps in (('tf', False, 3), ('tf', False, 5), ('thread', True, 5)):
    monkeypatch.setattr(cpu, 'reads_without_tensorflow', lambda without=without: without)
    config.train.steps = steps  # the second run continues the first one
    assert loop.pretrain(config, tmp_path / name) == loop.DONE
  records = [read_metrics(tmp_path / name / 'metrics.jsonl') for name in ('tf', 'thread')]
  losses = [{record['step']: record['train/loss'] for record in run if 'train/loss' in record}
            for run in records]
  assert losses[0] == losses[1] and list(losses[0]) == [1, 2, 3, 4, 5]
  assert given == [(1, 3), (4, 5)]


@pytest.mark.ci
def test_after_a_loss_spike_the_step_is_not_compiled_again(config, tmp_path, monkeypatch):
  found, train_loop, spikes = compilations(monkeypatch), loop.train_loop, [1]
  monkeypatch.setattr(xla_presets, 'options', lambda preset, platform: xla_presets.ON_CPUS)

  def with_a_spike(*args):
    if spikes:
      raise loop.rewind.Spike(spikes.pop(), 9.0, 5.0)
    return train_loop(*args)

  monkeypatch.setattr(loop, 'train_loop', with_a_spike)
  monkeypatch.setattr(loop.rewind, 'record', lambda *args: None)
  assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
  assert found == [xla_presets.ON_CPUS] and not spikes


@pytest.mark.ci
def test_a_run_that_is_complete_compiles_no_step(config, tmp_path, monkeypatch):
  assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
  found = compilations(monkeypatch)
  assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
  assert not found


@pytest.mark.ci
def test_a_run_from_a_damaged_last_checkpoint_compiles_when_it_has_a_step(config, tmp_path):
  config.checkpoint.every_steps = 3
  assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
  (tmp_path / 'run' / 'checkpoints' / '5' / 'manifest.json').write_text('{}')
  assert loop.pretrain(config, tmp_path / 'run') == loop.DONE
  assert (tmp_path / 'run' / 'checkpoints' / '5.damaged').exists()
