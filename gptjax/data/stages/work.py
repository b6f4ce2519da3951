"""The folder `OUT/work` of a corpus that is being prepared: the results of tasks, here or in a bucket.

A result is one or more files with a common beginning of their names; its record, `NAME.json`, is written last
and makes it complete. A task that is killed leaves no record, and is done again.
"""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json

import numpy as np

from gptjax.errors import InputError
from gptjax.storage.files import access, atomic, buckets, local, records, spool
from gptjax.storage.files.paths import Url

FOLDER = 'work'
KNOWN_FOLDER = 'folder'  # in `known` of a job
LAYOUT = 2    # of the results: those of another version are not read
RANGES = 4096  # that are read together, because a request has a time limit
READERS = 16  # threads that read records


class Incomplete(InputError):
  """A stage is not complete."""


def folder_of(job):
  """Return the folder of the results. Tasks of other settings, which may still run, have another one."""
  if KNOWN_FOLDER not in job.known:
    state = json.dumps([LAYOUT, job.settings, job.borders], sort_keys=True)
    job.known[KNOWN_FOLDER] = job.out / FOLDER / hashlib.sha256(state.encode()).hexdigest()[:16]
  return job.known[KNOWN_FOLDER]


def make_out(folder):
  """Create the folder that the tasks of a command share; InputError if that is not possible."""
  try:
    access.make_folder(folder)
  except OSError as error:
    raise InputError(f'{folder} is not writable ({error.strerror}): use another folder') from None


@contextlib.contextmanager
def writing(path):
  """Context manager of a binary file that is at `path`, here or in a bucket, once the block has ended.

  On this machine it is durable once a record is written to the same folder.
  """
  if not isinstance(path, Url):
    with atomic.replacing(path, sync_name=False) as file:
      yield file
    return
  with spool.temporary(path) as temporary:
    with local.opened(temporary, 'wb') as file:
      yield file
    spool.put_file(path, temporary)


def sync_names(folder):
  """Make files of `writing` durable that are in another folder than the record of their result."""
  if not isinstance(folder, Url):
    atomic.sync(folder)


def write(path, array):
  """Write an array as a file."""
  with writing(path) as file:
    file.write(np.ascontiguousarray(array).data)


def write_record(folder, name, record):
  """Make a result complete, with its record, a dict."""
  access.write(folder / f'{name}.json', json.dumps(records.add_checksum(record), sort_keys=True))


def read_record(folder, name):
  """Return the record of a result; None if the result is not complete."""
  path = folder / f'{name}.json'
  try:
    content = access.read(path)
  except FileNotFoundError:
    return None
  try:
    return records.remove_checksum(records.parse(content))
  except ValueError:
    stage = folder.name if name.isdigit() else name
    raise InputError(f'{path} is damaged: remove it, and run --stage={stage} again (or all stages)') from None


def read_records(job, stage, n):
  """Return the records of all `n` results of a stage, which each process reads once.

  Raises:
    Incomplete: the stage is not complete.
  """
  if stage not in job.known:
    names = [f'{number:05d}' for number in range(n)]
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
      found = list(pool.map(lambda name: read_record(job.work / stage, name), names))
    if missing := found.count(None):
      raise Incomplete(f'{job.out}: --stage={stage} is not complete, {missing} of {n} results are missing, '
                       f'the first is {found.index(None)}: run all of its tasks first')
    job.known[stage] = found
  return job.known[stage]


def remove(folder, *others):
  """Remove the work folder of a finished folder; other processes may be doing the same.

  Args:
    folder: Path or Url.
    others: folders in it, in which tasks that were killed may have left something too.
  """
  if isinstance(folder, Url):
    buckets.remove_tree(folder / FOLDER)
    return
  atomic.sync(folder)  # a killed process may have written the manifest without syncing its name
  atomic.remove(folder / FOLDER)
  for place in (folder, *others):
    atomic.remove_leftovers(place)  # of tasks that were killed


def complete(folder):
  """Return the set of the names of complete results."""
  return {name.removesuffix('.json') for name in access.names(folder) if name.endswith('.json')}


def read(path, dtype):
  """Return a whole file of a complete result as an array; InputError if it is missing."""
  with _of_complete_result(path):
    content = buckets.read(path, 1 << 62) if isinstance(path, Url) else local.content(path)
  return np.frombuffer(content, dtype)


def read_ranges(ranges):
  """Return [array of the items [start, stop) of each file]; those in a bucket are read concurrently.

  Args:
    ranges: list of (path, dtype, start, stop) of one kind of storage; start and stop count items.

  Raises:
    InputError: a file of a complete result is missing or too short.
  """
  sized = [(path, np.dtype(dtype), start, stop) for path, dtype, start, stop in ranges]
  wanted = [(path, dtype.itemsize * start, dtype.itemsize * stop) for path, dtype, start, stop in sized]
  if ranges and isinstance(ranges[0][0], Url):
    filled = [part for part in wanted if part[1] < part[2]]
    found = itertools.chain.from_iterable(
      _parts(filled[at:at + RANGES]) for at in range(0, len(filled), RANGES))
    contents = [next(found) if start < stop else b'' for _, start, stop in wanted]
  else:
    contents = [_part(*part) for part in wanted]
  return [np.frombuffer(content, dtype) for content, (_, dtype, _, _) in zip(contents, sized, strict=True)]


def _parts(wanted):
  try:
    return buckets.read_parts(wanted)
  except FileNotFoundError:
    for path, _, _ in wanted:
      if not access.is_file(path):
        raise _damaged(path, 'is missing') from None
    raise


def _part(path, start, stop):
  with _of_complete_result(path):
    return local.part(path, start, stop)


@contextlib.contextmanager
def _of_complete_result(path):
  """Context manager that says what to do if a file is missing or too short although its record exists."""
  try:
    yield
  except (FileNotFoundError, local.TooShort) as error:
    raise _damaged(path, 'is missing' if isinstance(error, FileNotFoundError) else 'was cut short') from None


def _damaged(path, fault):
  record = path.parent / f'{path.name.partition(".")[0]}.json'
  return InputError(f'{path} {fault}: remove {record}, and run --stage={path.parent.name} again (or all '
                    'stages)')
