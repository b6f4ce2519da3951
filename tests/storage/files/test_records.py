"""Records that a run reads back: damage is found and reported, and blocks no resume."""

import json
import math

import pytest

from gptjax.evaluate.journal import Journal
from gptjax.pretrain import rewind
from gptjax.report import files, samples, telemetry
from gptjax.storage import checkpoint, rewind_log
from gptjax.storage.files import records


def logged(folder, n=4):
  log = telemetry.Telemetry(folder, n, tensorboard=False)
  log.begin(0)
  for step in range(1, n + 1):
    log.write(step, {'train/loss': step / 7, 'time/run': 1e-5, 'eval/tasks': 3, 'a/b': math.nan})
  log.close()
  return folder / 'metrics.jsonl'


def flips(content):
  """The content with each of its bits flipped, one at a time."""
  for i in range(len(content)):
    for bit in range(8):
      yield content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1:]


def test_each_flipped_bit_of_metrics_is_found_or_changes_nothing(tmp_path):
  path = logged(tmp_path)
  whole, content = telemetry.read_metrics(path), path.read_bytes()
  for damaged in flips(content):
    path.write_bytes(damaged)
    said = []
    found = telemetry.read_metrics(path, said.append)
    assert all(record in whole for record in found), damaged
    assert len(found) == len(whole) or said, damaged
    assert len(said) <= 1 and all('damaged' in line and f'{path}: ' in line for line in said)


@pytest.mark.parametrize('line', [
  '{"step": 5, "train/lo', '{"stup": 5, "train/loss": 1.0}', '{"step": 5.0}', '{"step": true}',
  '{"step": -1}', '{"step": 5, "train/loss": "1"}', '{"step": 5, "train/loss": NaN}',
  '{"step": 5, "train/loss": 1e999}',
  '{"step": 5, "train/loss": [1]}', '{"step": 5, "loss": 1.0}', '[5]', '5', '', '\0' * 9, '[' * 100_000,
  '{"step": ' + '9' * 5000 + '}', '{"step": 99999999999999999999}', b'{"step": 5, "tr\xffain/loss": 1.0}',
  '{"step": 5, "train/loss": 1.0, "crc32": 7}', '{"step": 5, "train/loss": 1.0, "crc32": null}'])
def test_a_damaged_line_is_left_out_and_reported_by_its_number(tmp_path, line, capsys):
  path, line = tmp_path / 'metrics.jsonl', line if isinstance(line, bytes) else line.encode()
  good = b'{"step": 4, "train/loss": 1.0, "eval/loss": null}'  # as an older version wrote it
  path.write_bytes(b'\n'.join([good, line, good, b'']))
  assert telemetry.read_metrics(path) == 2 * [{'step': 4, 'train/loss': 1.0, 'eval/loss': None}]
  assert capsys.readouterr().err == f'{path}: 1 damaged or truncated, omitted: line 2\n'


def test_lines_without_a_checksum_come_before_those_with_one(tmp_path):
  path = logged(tmp_path, 2)
  old = '{"step": 1, "train/loss": 9.0}\n'
  path.write_text(old + path.read_text() + old)
  said = []
  assert [record['train/loss'] for record in telemetry.read_metrics(path, said.append)] == [9.0, 1 / 7, 2 / 7]
  assert len(said) == 1 and said[0].endswith('line 4')


def test_time_is_not_forgotten_with_the_steps_that_are_done_again(tmp_path):
  log = telemetry.Telemetry(tmp_path, 9, tensorboard=False)
  log.begin(0)
  for step in range(1, 6):
    log.write(step, {'time/run': 100.0 * step, 'time/steps': 90.0 * step})
  log.close()
  for _ in range(3):  # lives that end before they have logged a step
    log = telemetry.Telemetry(tmp_path, 9, tensorboard=False)
    log.begin(2)
    assert log.seconds_before == 500 and log.step_seconds == 180
    log.close()


REWINDS = [{'step': 9, 'loss': 5.5, 'usual_loss': 4.25, 'to': 5, 'passed': 6},
           {'step': 12, 'loss': None, 'usual_loss': 4.0, 'to': 10, 'passed': 3}]


@pytest.fixture
def rewound(tmp_path):
  """A workdir with two rewinds, both before its newest checkpoint."""
  for step, n in ((5, 0), (15, 2)):
    (tmp_path / 'checkpoints' / str(step)).mkdir(parents=True)
    checkpoint.write_manifest(tmp_path / 'checkpoints' / str(step), {
      'step': step, 'metric': None, 'facts': rewind_log.facts(REWINDS[:n]), 'arrays': {}, 'files': {}})
  assert rewind.apply_rewinds(tmp_path) == REWINDS  # from the checkpoint: there was no file
  return tmp_path


def test_each_flipped_bit_of_rewinds_is_found_and_mended(rewound):
  path, said = rewound / 'rewinds.json', []
  content = path.read_bytes()
  assert json.loads(content)[0]['step'] == 9
  for damaged in flips(content):
    path.write_bytes(damaged)
    assert rewind_log.read(rewound, said.append) == REWINDS, damaged
  assert said and all('checkpoint 15 records' in line for line in said)
  path.write_bytes(content[:30])
  assert rewind.apply_rewinds(rewound) == REWINDS and path.read_bytes() == content
  path.unlink()
  assert rewind.apply_rewinds(rewound) == REWINDS and path.read_bytes() == content


def test_rewinds_of_an_older_version_are_read_and_a_damaged_file_blocks_nothing(rewound, capsys):
  path, folder = rewound / 'rewinds.json', rewound / 'checkpoints' / '15'
  path.write_text(json.dumps(REWINDS))
  assert rewind_log.read(rewound) == REWINDS and not capsys.readouterr().err
  manifest = checkpoint.read_manifest(folder)
  checkpoint.write_manifest(folder, manifest | {'facts': {'rewinds': 2}})
  assert rewind_log.read(rewound) == REWINDS and not capsys.readouterr().err
  path.write_text('[{"step": 3,')
  assert rewind.apply_rewinds(rewound) == []
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'is damaged' in said and 'the run continues without' in said
  assert rewind.apply_rewinds(rewound) == [] and (folder / 'manifest.json').exists()


def test_each_flipped_bit_of_a_journal_is_found(tmp_path):
  path = tmp_path / 'answers' / 'task.jsonl'
  journal = Journal(path, 'model')
  journal.begin()
  for number in range(3):
    journal.part('scores', ['a', 'b', 'c']).record(number, [[-1.5, number], True])
  journal.close()
  whole = Journal(path, 'model').part('scores', ['c', 'x', 'a', 'b']).known
  assert whole == {0: [[-1.5, 2], True], 2: [[-1.5, 0], True], 3: [[-1.5, 1], True]}
  for damaged in flips(path.read_bytes()):
    path.write_bytes(damaged)
    said = []
    found = Journal(path, 'model', said.append).part('scores', ['c', 'x', 'a', 'b']).known
    assert all(whole.get(number) == answer for number, answer in found.items())
    assert len(found) == len(whole) or said


def test_each_flipped_bit_of_a_results_file_is_found_or_changes_nothing(tmp_path):
  path, record = tmp_path / 'results.json', {'tasks': {'lambada': {'accuracy': 0.5, 'n': 3}}, 'limit': 0}
  path.write_text(records.text(record))
  assert records.read(path) == record
  for damaged in flips(path.read_bytes()):
    path.write_bytes(damaged)
    try:
      found = records.read(path)
    except ValueError as error:
      assert 'is damaged' in str(error) and '\n' not in str(error)
    else:
      assert {name: found.get(name) for name in record} == record, damaged
  path.write_bytes(b'{"tasks": ')
  said = []
  assert records.read_or_discard(path, said.append) is None and not path.exists()
  assert path.with_name('results.json.damaged').read_bytes() == b'{"tasks": ' and len(said) == 1


def test_a_report_refuses_damaged_samples_in_one_line(tmp_path):
  samples.save(tmp_path, {'': ['a', 'b'], 'One': ['c']}, 3)
  path = tmp_path / 'samples.json'
  read = lambda: files.read(path, files.SAMPLES, [])
  whole, content = read(), path.read_bytes()
  assert [row['text'] for row in whole] == ['a', 'b', 'c']
  for damaged in flips(content):
    path.write_bytes(damaged)
    try:
      assert read() == whole or [{name: row[name] for name in whole[0]} for row in read()] == whole
    except ValueError as error:
      assert 'is damaged' in str(error) and '\n' not in str(error)


def test_a_record_that_is_sealed_again_has_one_checksum_of_its_other_fields():
  once = records.add_checksum({'a': 1})
  assert records.add_checksum(once) == once
  assert records.remove_checksum(records.add_checksum({**once, 'a': 2})) == {'a': 2}
