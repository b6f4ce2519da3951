"""FLOPs to the integer, records that survive a restart, and curves that are there."""

import importlib
import json
import math
import os
import threading
from types import SimpleNamespace

import pytest
from conftest import tiny_config

from gptjax.model import size
from gptjax.report import telemetry, tensorboard

# MFLOP a token: PaLM's convention and the causal half, at the papers' context.
FLOPS = {'gpt2_small': (855_166_464, 798_543_360), 'gpt2_medium': (2_424_637_440, 2_273_642_496),
         'gpt2_large': (5_202_547_200, 4_919_431_680), 'gpt2_xl': (10_279_555_200, 9_807_696_000),
         'gpt1': (753_472_512, 725_160_960)}


@pytest.mark.parametrize('name', FLOPS)
def test_flops_a_token_in_both_conventions(name):
  model = importlib.import_module(f'configs.{name}').get_config().model
  assert size.flops_per_token(model, model.n_ctx) == dict(zip(('palm', 'causal'), FLOPS[name]))


def test_flops_equal_a_count_by_hand():
  model = tiny_config(**{'model.n_layer': 3, 'model.n_head': 2, 'model.n_embd': 8, 'model.n_ctx': 16,
                         'model.n_vocab': 10}).model
  matmuls = 10 * 8 + 3 * (8 * 24 + 8 * 8 + 8 * 32 + 32 * 8)
  small = 3 * (24 + 8 + 32 + 8 + 4 * 8) + 2 * 8
  attention = 3 * 2 * 2 * 8 * 16  # layers x (scores, sum) x multiply-add x width x tokens
  assert size.flops_per_token(model, 16)['palm'] == 6 * (matmuls + small) + 3 * attention


def test_peaks_by_device_kind():
  kind = lambda name: telemetry.peak_flops(type('Device', (), {'device_kind': name}))
  assert kind('NVIDIA H100 80GB HBM3') == 989e12 and kind('TPU v5 lite') == 197e12
  assert kind('TPU v5p') == kind('TPU v5') == 459e12 and kind('cpu') is None


def test_a_restart_drops_what_came_after_its_checkpoint_and_a_line_cut_short(tmp_path):
  log = telemetry.Telemetry(tmp_path, 10, tensorboard=False)
  log.begin(0)
  for step in range(1, 6):
    log.write(step, {'train/loss': step / 3})
  log.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 6, "train/lo')
  log = telemetry.Telemetry(tmp_path, 10, tensorboard=False)
  log.begin(3)
  assert log.value(3, 'train/loss') == 1.0 and log.value(4, 'train/loss') is None
  log.write(4, {'train/loss': math.nan})
  log.close()
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 2, 3, 4]
  assert json.loads(lines[-1])['train/loss'] is None
  assert float(json.loads(lines[0])['train/loss']).hex() == (1 / 3).hex()


def test_tensorboard_files_hold_the_scalars(tmp_path):
  log = telemetry.Telemetry(tmp_path, 10, tensorboard=True)
  log.begin(0)
  log.write(1, {'train/loss': 2.5})
  log.close()
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
  events = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
  from tensorboard.util import tensor_util
  value = events.Tensors('train/loss')[0]
  assert value.step == 1 and float(tensor_util.make_ndarray(value.tensor_proto)) == 2.5


def test_an_event_file_holds_what_was_written_before_a_kill_and_is_never_another_one(tmp_path):
  from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
  files = [tensorboard.EventFile(tmp_path) for _ in range(2)]
  files[0].write(7, {'a': 1.5, 'b': float('nan')})
  events = [list(EventFileLoader(str(path)).Load()) for path in sorted(tmp_path.iterdir())]
  assert [event.file_version for event, *_ in events] == ['brain.Event:2'] * 2 and len(events[1]) == 1
  (event,) = events[0][1:]
  assert event.step == 7 and [value.tag for value in event.summary.value] == ['a', 'b']
  for file in files:
    file.close()


def test_a_full_disk_is_one_warning_with_the_name_of_the_file_and_closes_it(tmp_path, capfd):
  log = telemetry.Telemetry(tmp_path, 10, tensorboard=True)
  log.begin(0)
  board = log.optional_writers[0]
  board.writer = board._open()
  file = board.writer._records
  full = os.open('/dev/full', os.O_WRONLY)
  os.dup2(full, file._writer.fileno())
  os.close(full)
  for step in (1, 2, 3):
    log.write(step, {'train/loss': 1.0, 'train/grad_norm': 1e300})
  log.close()
  said = [line for line in capfd.readouterr().err.splitlines() if 'step ' not in line]
  path, = (tmp_path / 'tensorboard').iterdir()
  assert said == [f'TensorBoard ({tmp_path}/tensorboard) failed, continuing without: '
                  f'No space left on device {path}']
  assert file.closed


def test_a_step_does_not_wait_for_tensorboard(tmp_path, monkeypatch):
  opened, steps = threading.Event(), []
  writer = SimpleNamespace(write=lambda step, metrics: steps.append(step), close=lambda: None)
  monkeypatch.setattr(telemetry.TensorBoard, '_open', lambda self: opened.wait(60) and writer)
  log = telemetry.Telemetry(tmp_path, 10, tensorboard=True)
  log.begin(0)
  for step in (1, 2, 3):
    log.write(step, {'train/loss': 2.5})
  assert not steps and len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3
  opened.set()
  log.close()
  assert steps == [1, 2, 3]


def test_a_thread_that_cannot_start_and_writes_after_the_end_take_tensorboard_alone(tmp_path, monkeypatch,
                                                                                    capsys):
  log = telemetry.Telemetry(tmp_path, 10, tensorboard=True)
  log.begin(0)
  def fails(self):
    raise RuntimeError("can't start new thread")
  monkeypatch.setattr(threading.Thread, 'start', fails)
  log.write(1, {'train/loss': 2.5})
  monkeypatch.undo()
  assert 'TensorBoard' in capsys.readouterr().err
  log.write(2, {'train/loss': 2.5})
  log.close()
  board = log.optional_writers[0]
  board.close()
  board.write(3, {'train/loss': 2.5})
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 2 and board.writer is None


@pytest.mark.parametrize('in_calling_thread, at_once', [(True, [1, 2]), (False, [1])])
def test_metrics_are_read_a_step_late_unless_the_step_is_complete(in_calling_thread, at_once, monkeypatch):
  monkeypatch.setattr(telemetry.cpu, 'computes_in_calling_thread', lambda: in_calling_thread)
  found = []
  unread = telemetry.UnreadMetrics(lambda number, metrics: found.append(number))
  unread.add(1, {})
  unread.add(2, {})
  assert found == at_once
  unread.read_all()
  assert found == [1, 2]


def test_stopwatch_splits_its_time(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(telemetry.time, 'monotonic', lambda: now[0])
  watch = telemetry.Stopwatch()
  now[0] += 20.0
  watch.excluded, watch.input, watch.steps = 10.0, 1.0, 5
  assert watch.report() == (2.0, 0.1)


def test_curves_are_a_picture(tmp_path):
  with open(tmp_path / 'metrics.jsonl', 'w') as file:
    for step in range(1, 5):
      file.write(json.dumps({'step': step, 'train/loss': 5 / step,
                             'train/tokens_per_second': 100.0}) + '\n')
    file.write(json.dumps({'step': 4, 'eval/loss': 1.5}) + '\n')
  path = telemetry.plot_curves(tmp_path, {'bigram': 2.0})
  assert path.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'


def test_durations():
  assert telemetry.duration(5) == '0:05' and telemetry.duration(3723) == '1:02:03'


def test_goodput_counts_all_time_and_only_the_steps_that_stand(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(telemetry.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(telemetry, 'PROCESS_START', 100.0)
  first = telemetry.Telemetry(tmp_path, 9, tensorboard=False)
  first.begin(0)
  for step in (1, 2, 3):
    now[0] += 10
    first.write(step, first.goodput(8.0))
  first.close()
  monkeypatch.setattr(telemetry, 'PROCESS_START', 500.0)
  now[0] = 505.0
  second = telemetry.Telemetry(tmp_path, 9, tensorboard=False)
  second.begin(2)  # step 3 is done again
  assert second.goodput(5.0) == {'time/run': 35.0, 'time/steps': 21.0, 'time/goodput': 0.6}
  second.close()
