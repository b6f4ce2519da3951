"""Files of lines that grow in a bucket: parts that are never changed, in order; damage is reported."""

import functools
import threading
import time

import object_storage
import pytest

from gptjax.errors import InputError
from gptjax.storage.files import access, atomic, buckets, cache, parts, paths, records, spool

served = object_storage.served(object_storage.BUCKETS)


@pytest.fixture
def path(served, monkeypatch, request, tmp_path):
  """The Url of a file of lines in a folder of its own; no faults yet."""
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  served[1].fail, served[1].mutations_per_second, served[1].requests[:] = 0.0, 0.0, []
  return paths.location(f'{served[0]}://buck/{abs(hash(request.node.name))}/lines.jsonl')


def lines(path, said=None):
  """The lines of all parts; reports are appended to `said`."""
  said = [] if said is None else said
  return records.read_lines(path, str, said.append)


def test_lines_of_several_processes_come_back_in_their_order(path, tmp_path):
  assert lines(path) == [] and parts.read(path, print) == []
  first = parts.Writer(path, print)
  first.write('1\n2\n')
  first.flush()
  first.flush()
  first.write('3\n')
  first.close()
  second = parts.Writer(path, print)
  second.write('4\n')
  second.close()
  assert lines(path) == ['1', '2', '3', '4'] and len(parts.part_names(path)) == 3
  access.write(path, '0\n')  # as of a run that was moved from a local folder
  assert lines(path) == ['0', '1', '2', '3', '4']
  for name, _ in buckets.find(path.parent).items():  # a copy on this machine
    (tmp_path / 'copy' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'copy' / name).write_bytes(access.read(path.parent / name))
  assert lines(tmp_path / 'copy' / 'lines.jsonl') == ['0', '1', '2', '3', '4']


def test_a_process_whose_clock_is_slow_still_comes_after_those_before_it(path):
  access.write(path.parent / 'lines' / '29991231T235959999999-0123abcd-000000.jsonl', 'first\n')
  writer = parts.Writer(path, print)
  writer.write('second\n')
  writer.close()
  assert lines(path) == ['first', 'second'] and parts.part_names(path)[1].startswith('30000101T000000000000-')


def test_parts_are_put_by_themselves_each_once_under_faults(path, served):
  served[1].fail, served[1].mutations_per_second = 0.1, 1.0
  writer = parts.Writer(path, print, every=0.05)
  expected = []
  for number in range(60):
    expected.append(f'line {number}')
    writer.write(expected[-1] + '\n')
    threading.Event().wait(0.01)
  writer.close()
  served[1].fail = 0.0
  assert lines(path) == expected and len(parts.part_names(path)) > 1
  put = [(where, size) for method, where, size in served[1].requests if method in ('PUT', 'POST') and size]
  size = len('\n'.join(expected)) + 1
  assert sum(size for _, size in put) <= 3 * size + 600 * len(put)  # some of which is the protocol's


def test_many_parts_are_merged_and_each_line_is_read_once(path, monkeypatch):
  monkeypatch.setattr(parts, 'MERGED', 4)
  writer, expected = parts.Writer(path, print), []
  def write(number):
    for _ in range(number):
      expected.append(f'line {len(expected)}')
      writer.write(expected[-1] + '\n')
      writer.flush()
  write(6)
  writer._merge()
  write(3)
  with monkeypatch.context() as patched:  # killed between the merged part and the removal of its parts
    patched.setattr(access, 'remove', lambda url: None)
    writer._merge()
  assert len(access.names(path.parent / 'lines')) == 1 + 1 + 5
  write(1)
  writer.close()
  assert len(parts.part_names(path)) == 4 and lines(path) == expected
  listed = parts._parts(path)  # as if others had merged them after the list
  gone, original = [], parts._parts
  def first_of_before(where):
    gone.append(where)
    return [listed[0]._replace(name='none'), *listed[1:]] if len(gone) == 1 else original(where)
  monkeypatch.setattr(parts, '_parts', first_of_before)
  assert lines(path) == expected and len(gone) == 2


def test_an_object_is_replaced_once_per_second_at_most(path, served):
  served[1].mutations_per_second = 1.0
  for number in range(3):
    access.write(path, f'{number}\n')
  assert access.read(path) == b'2\n'
  put = [method for method, where, size in served[1].requests if method in ('PUT', 'POST')]
  assert len(put) == 3


def test_what_is_missing_or_damaged_is_reported(path):
  writer = parts.Writer(path, print)
  for number in range(4):
    writer.write(f'{number}\n')
    writer.flush()
  writer.close()
  names, said = parts.part_names(path), []
  access.remove(path.parent / 'lines' / names[1])
  access.write(path.parent / 'lines' / names[2], b'\xff\n7\n')
  access.write(path.parent / 'lines' / 'other.txt', b'not a part\n')
  assert lines(path, said) == ['0', '7', '3']
  assert len(said) == 2 and said[0].endswith(f'/lines: {names[1]} is missing: its lines are omitted')
  assert said[1].endswith(f'{names[2]}: 1 damaged or truncated, omitted: line 1')


def test_lines_that_cannot_be_put_stay_on_this_machine(path, served, monkeypatch, tmp_path):
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 0)
  said = []
  writer = parts.Writer(path, said.append)
  writer.write('1\n')
  served[1].fail, served[1].code = 1.0, 403
  with pytest.raises(InputError, match='access is denied'):
    writer.flush()
  served[1].fail, served[1].code = 0.0, 503
  writer.write('2\n')
  writer.flush()  # another attempt puts the same part, then the rest
  assert lines(path) == ['1', '2'] and len(parts.part_names(path)) == 2
  writer.write('3\n')
  served[1].fail, served[1].code = 1.0, 403
  with pytest.raises(InputError, match='access is denied'):
    writer.close()
  served[1].fail, served[1].code = 0.0, 503
  kept = next(tmp_path.glob('cache/outgoing/*/*/*.jsonl'))
  assert kept.read_text() == '1\n2\n3\n' and said == [
    f'{path.parent / "lines"}: the last lines are not there, but in {kept}, from byte 4 on']
  assert (spool._root() / spool.KEEP).exists()


def test_after_an_outage_that_is_over_the_last_lines_are_put(path, monkeypatch):
  said, write, fails = [], access.write, [True]
  def failing(url, content):
    if fails:
      raise InputError('an outage')
    write(url, content)
  monkeypatch.setattr(access, 'write', failing)
  writer = parts.Writer(path, said.append, every=0.02)
  writer.write('1\n')
  with pytest.raises(InputError, match='an outage'):
    writer.flush()
  fails.clear()
  deadline = time.monotonic() + 30
  while not parts.part_names(path) and time.monotonic() < deadline:
    time.sleep(0.02)
  writer._every = 1e6  # whatever the thread does from now on
  writer.write('2\n')
  writer.close()
  assert lines(path) == ['1', '2']


def test_lines_after_a_flush_that_failed_are_not_lost_silently(path, monkeypatch, tmp_path):
  said = []
  writer = parts.Writer(path, said.append)
  writer.write('1\n')
  with monkeypatch.context() as patched:
    patched.setattr(access, 'write', lambda url, content: (_ for _ in ()).throw(InputError('an outage')))
    with pytest.raises(InputError):
      writer.flush()
    writer.write('2\n')
    writer.close()
  kept = next(tmp_path.glob('cache/outgoing/*/*/*.jsonl'))
  assert kept.read_text() == '1\n2\n' and said == [
    f'{path.parent / "lines"}: the last lines are not there, but in {kept}, from byte 0 on']
  assert (spool._root() / spool.KEEP).exists()


def test_closing_waits_a_short_time_for_the_storage(path, monkeypatch, tmp_path):
  monkeypatch.setattr(parts, 'CLOSE_SECONDS', 0.2)
  answered, write, said = threading.Event(), access.write, []
  monkeypatch.setattr(access, 'write', lambda url, content: (answered.wait(60), write(url, content)))
  writer = parts.Writer(path, said.append)
  writer.write('1\n')
  began = time.monotonic()
  with pytest.raises(InputError, match=r'the storage has not answered for 0\.2 s'):
    writer.close()
  assert time.monotonic() - began < 10 and len(said) == 1 and 'the last lines are not there' in said[0]
  answered.set()
  writer._thread.join()


@pytest.mark.first_cases(1)
def test_a_merge_that_fails_is_reported_as_such_and_tried_again(path, monkeypatch):
  monkeypatch.setattr(parts, 'MERGED', 2)
  said, remove, failed = [], access.remove, []
  def failing(url):
    if len(failed) < 3:
      failed.append(url)
      raise InputError('access is denied')
    remove(url)
  monkeypatch.setattr(access, 'remove', failing)
  writer = parts.Writer(path, said.append, every=0.02)
  for number in range(3):
    writer.write(f'{number}\n')
    writer.flush()
  deadline = time.monotonic() + 30
  while (len(parts.part_names(path)) > 2 and time.monotonic() < deadline) or len(failed) < 3:
    time.sleep(0.02)
  writer.close()
  assert lines(path) == ['0', '1', '2']
  assert said == [f'{path.parent / "lines"}: parts could not be merged, which is tried again later '
                  '(access is denied)']


def test_a_kill_while_parts_become_one_file_doubles_and_loses_nothing(tmp_path, monkeypatch):
  path = tmp_path / 'lines.jsonl'
  folder = tmp_path / 'lines'
  operations = [(atomic, 'write'), (access, 'remove'), (atomic, 'sync')]
  for steps in range(99):
    folder.mkdir(exist_ok=True)
    path.write_text('0\n')
    for number in range(3):
      (folder / f'20261130T094706123456-1f2e3d4c-{number:06}.jsonl').write_text(f'{number + 1}\n')
    assert lines(path) == ['0', '1', '2', '3']
    left = [steps]
    def killed(work, *arguments, left=left):
      if not left[0]:
        raise KeyboardInterrupt
      left[0] -= 1
      return work(*arguments)
    with monkeypatch.context() as patched:
      for module, name in operations:
        patched.setattr(module, name, functools.partial(killed, getattr(module, name)))
      try:
        parts.replace(path, '0\n1\n2\n')
        break
      except KeyboardInterrupt:
        pass
    found = lines(path)
    assert found in (['0', '1', '2', '3'], ['0', '1', '2'])
    parts.replace(path, ''.join(f'{line}\n' for line in found))
    assert lines(path) == found and not folder.exists()
  assert steps > 4 and lines(path) == ['0', '1', '2'] and not folder.exists()
