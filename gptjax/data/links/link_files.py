"""The stages `select` and `merge`: links of all dumps, each once, in files of URLs.

    select   for each part of the dumps: its links, each once, in the order of their keys
    merge    for each range of keys: the links of all parts, each once

The result of a part of `select` consists of runs: the links of up to RUN_LINKS, sorted.

    NAME.links    lines KEY TAB URL TAB KARMA TAB CREATED TAB SUBREDDIT TAB SUBMISSIONS
    NAME.borders  uint64[runs, BUCKETS + 1]: where in it the links with each first byte of the key begin

`merge` writes three files for a range of keys: the URLs, the links, and the keys as `url_list` reads them.

The files are in the order of the keys, which are hashes: the URLs of one site are far apart, as a crawler
wants them, and a file is a random sample of all links. Two submissions of a link are joined by `_joined`,
whose result does not depend on their order, so the files do not depend on the division of the work.
"""

import collections
import hashlib
import json

import numpy as np

from gptjax.data.links import submissions, url_list, urls
from gptjax.data.sources import jsonl
from gptjax.data.stages import parts, run, work
from gptjax.errors import InputError
from gptjax.storage.files import paths

RUN_LINKS = 1 << 20   # in memory: about half a kilobyte each
BUCKETS = 256         # ranges of keys; a file has one or more
FILE_LINKS = 1 << 18  # at most about this many in a file, unless there are more than BUCKETS files
URLS, LINKS, KEYS = 'urls-{:05d}.txt', 'links-{:05d}.jsonl', 'keys-{:05d}.bin'
REST = 'rest of a damaged file'


def stages():
  """Return the stages of webtext-links."""
  return {'select': run.Stage(_n_parts, _make_select, 'reading dumps', parts.text_bytes),
          'merge': run.Stage(n_files, _make_merge, 'writing files')}


def _n_parts(job):
  return job.n_parts


def _make_select(job):
  return lambda number: select(job, number)


def _make_merge(job):
  return lambda number: merge(job, number)


def select(job, number):
  """Write the links of a part."""
  where, name = job.work / 'select', f'{number:05d}'
  counts, found, borders, lines = collections.Counter(), {}, [], 0
  with work.writing(where / f'{name}.links') as file:
    for line in _lines(job, number, counts):
      link, reason = submissions.read(line, job.options)
      counts[reason] += 1
      if link:
        _add(found, urls.key(link.url), link)
      if len(found) >= RUN_LINKS:
        borders.append(_write_run(file, found))
        lines, found = lines + len(found), {}
    borders.append(_write_run(file, found))
  work.write(where / f'{name}.borders', np.array(borders, '<u8'))
  work.write_record(where, name, {'runs': len(borders), 'links': lines + len(found),
                                  'kept': counts.pop('', 0), 'left_out': dict(counts)})


def _lines(job, number, counts):
  """Yield the lines of a part; of a line that is too long, nothing."""
  for unit, first, end in parts.spans(job.borders, number):
    path = job.reading.units[unit].path
    for location, line, problem in jsonl.lines(path, first, end, long_window=True):
      if problem and not problem.startswith(jsonl.TOO_LONG):  # the rest of the file cannot be read
        if job.reading.stop_on_error:
          raise InputError(parts.unusable_message(location, problem))
        counts[REST] += 1
      elif problem or not line.isspace():
        yield line


def _add(found, key, link):
  found[key] = _joined(found[key], link) if key in found else link


def _joined(one, other):
  """Return the Link of the submissions of two: its URL and subreddit are those of the first submission."""
  first = min(one, other, key=lambda link: (link.created, link.url, link.subreddit))
  return first._replace(karma=max(one.karma, other.karma), submissions=one.submissions + other.submissions)


def _write_run(file, found):
  """Write links, sorted; returns the BUCKETS + 1 positions in the file at which those of a bucket begin."""
  borders = []
  for key in sorted(found):
    borders += [file.tell()] * (key[0] + 1 - len(borders))
    file.write('\t'.join([key.hex(), *map(str, found[key])]).encode() + b'\n')
  return borders + [file.tell()] * (BUCKETS + 1 - len(borders))


def _selected(job):
  return work.read_records(job, 'select', job.n_parts)


def n_files(job):
  """Return the number of files of URLs, a power of two."""
  most = sum(record['links'] for record in _selected(job))
  return 1 << min(BUCKETS.bit_length() - 1, max(0, (most - 1) // FILE_LINKS).bit_length())


def merge(job, number):
  """Write the files of a range of keys."""
  width, found = BUCKETS // n_files(job), {}
  for content in _ranges(job, number * width, (number + 1) * width):
    for line in content.decode().splitlines():
      key, url, karma, created, subreddit, times = line.split('\t')
      _add(found, key, submissions.Link(url, int(karma), int(created), subreddit, int(times)))
  keys = sorted(found)
  links = [found[key] for key in keys]
  contents = {URLS: ''.join(f'{link.url}\n' for link in links).encode(),
              LINKS: ''.join(json.dumps(link._asdict()) + '\n' for link in links).encode(),
              KEYS: url_list.packed(map(bytes.fromhex, keys))}
  files = {}
  for pattern, content in contents.items():
    name = pattern.format(number)
    with work.writing(paths.location(job.out) / name) as file:
      file.write(content)
    files[name] = hashlib.sha256(content).hexdigest()
  work.sync_names(job.out)
  work.write_record(job.work / 'merge', f'{number:05d}', {'links': len(links), 'files': files})


def _ranges(job, first, end):
  """Yield the bytes of the links of the buckets [first, end), of each run of each part."""
  where, records = job.work / 'select', _selected(job)
  names = [f'{part:05d}' for part, record in enumerate(records) for _ in range(record['runs'])]
  begins = [run * (BUCKETS + 1) for record in records for run in range(record['runs'])]
  ends = [[(where / f'{name}.borders', '<u8', begin + at, begin + at + 1) for name, begin in
           zip(names, begins, strict=True)] for at in (first, end)]
  starts, stops = (np.concatenate(work.read_ranges(wanted)).tolist() for wanted in ends)
  for name, start, stop in zip(names, starts, stops, strict=True):
    content, = work.read_ranges([(where / f'{name}.links', np.uint8, start, stop)])
    yield content.tobytes()


def manifest(job):
  """Return the content of the manifest: the counts, and the digests of the files."""
  selected, merged = _selected(job), work.read_records(job, 'merge', n_files(job))
  left_out = collections.Counter()
  for record in selected:
    left_out.update(record['left_out'])
  kept = sum(record['kept'] for record in selected)
  return {'version': 1, 'submissions': kept + sum(left_out.values()), 'kept': kept,
          'left_out': dict(left_out), 'links': sum(record['links'] for record in merged),
          'files': {name: digest for record in merged for name, digest in record['files'].items()}}
