"""Builds a filter of all 8-grams of sources, in several processes, in memory that does not grow with them.

First each 8-gram's key goes into one of some drawers, files of 8 bytes a key, by its high bits; then each
drawer is sorted and fills its own parts of the filter. What takes time is a function of a block of text or
of a drawer, so it is done by as many processes as there are, and after a kill the same call goes on from
its last commit. The filter is the same bit for bit. On disk this takes 8 bytes an 8-gram beside the 5 of
the filter.
"""

import contextlib
import itertools
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.data import blocks, workers
from gptjax.data import progress as progress_bar
from gptjax.data.corpus import shards
from gptjax.data.sources import documents as sources
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.overlap import bloom, eightgrams
from gptjax.files import atomic
from gptjax.storage import ownership
from gptjax.text.redacted import redacted_values

DRAWER_KEYS = 1 << 23     # wanted in a drawer: 64 MB
MAX_DRAWERS = 512         # files that are open at a time
BITS = 'bits'
COMMIT_SECONDS = 10.0
# Bytes of text in what `documents.Unit.size` counts, about: they decide how many drawers there are, no more.
TEXT_BYTES = {'tfds': 2000, 'corpus': 4, 'python': 1}
COMPRESSED = 3
WORD_BYTES = 6


class After(NamedTuple):
  """A position in the sources, between two pieces."""
  unit: int = 0
  pieces: int = 0
  documents: int = 0
  held: str = ''       # the end of the document's text so far, see eightgrams.hold_back


class Job(NamedTuple):
  """What is asked for."""
  reading: blocks.ReadOptions
  settings: dict       # all that the filter depends on, JSON
  rate: float          # of false positives, at most
  capacity: int        # 8-grams that the filter is made for; 0: those of the sources
  work: Path           # folder of what is kept until the filter is complete
  workers: int
  progress: bool


def texts(reading, after):
  """(After it, piece, why it is left out or '') from a position on; pieces begin and end between words."""
  held = after.held
  for position, piece, why in blocks.label_pieces(reading, blocks.Position(*after[:3]), ()):
    text = held + piece.text if piece.start else piece.text
    held = ''
    if not why and piece.start + len(piece.text) < piece.length:
      text, held = eightgrams.hold_back(text)
    yield After(*position, held), piece._replace(text=text), why


def filter_of(name, source, folder, *, rate, capacity, workers, tfds_dir, on_error, separator,
              progress=True):
  """The Filter of all 8-grams of sources, built if it is not in the folder yet.

  Args:
    name: what its file's name begins with.
    source: list of sources (see `data.sources`).
    folder: where filters are kept.
    rate: of false positives, at most.
    capacity: 8-grams that it has room for; 0: those of the sources. Filters of one capacity and rate can
      be merged.
    workers: processes.
    tfds_dir, on_error, separator: as for `data.prepare`.
    progress: show bars on stderr.

  Raises:
    ValueError: a source that is not there, text that cannot be used, too small a capacity, a damaged filter.
  """
  units = sources.units(source, tfds_dir)
  settings = {'version': bloom.VERSION, 'units': redacted_values(units), 'separator': separator,
              'on_error': on_error, 'rate': rate, 'capacity': capacity,
              'sources': sources.recorded_sources(source, units)}
  key = tokenizer_files.digest(json.dumps({**settings, 'sources': None}).encode())[:12]
  target = Path(folder) / f'{name}-{key}.bloom'
  work = target.with_suffix('.work')
  if not target.exists():
    reading = blocks.ReadOptions(units, separator, tfds_dir, on_error == 'stop', None)
    job = Job(reading, settings, rate, capacity, work, workers, progress)
    with ownership.own_folder(work):
      if not target.exists():  # by now
        _build(job, target)
  atomic.sync(folder)
  shutil.rmtree(work, ignore_errors=True)  # also what a process left that was killed when it was done
  return bloom.open_filter(target, progress=progress)


def _build(job, target):
  state = shards.load_state(job.work)
  if state is None:
    state = {'after': After(), 'sizes': [0] * n_drawers(job.reading.units), 'eightgrams': 0, 'bytes': 0,
             'skipped': 0, 'filled': None}
  if state['filled'] is None:
    if job.capacity:  # else it is known only when the sources have been read
      _require_space(job, bloom.Shape.of(job.capacity, job.rate))
    _read(job, state)
    shape = bloom.Shape.of(job.capacity or state['eightgrams'], job.rate)
    _require_space(job, shape)
    drawers = len(state['sizes'])
    # Each drawer is for a whole number of parts.
    state['filled'] = {'parts': math.ceil(shape.parts / drawers) * drawers, 'hashes': shape.hashes,
                       'drawers': 0, 'distinct': 0, 'rates': 0.0}
    shards.save_state(job.work, state)
  _fill(job, state)
  filled = state['filled']
  facts = {'parts': filled['parts'], 'hashes': filled['hashes'], 'rate': job.rate,
           'capacity': job.capacity or state['eightgrams'], 'expected': filled['rates'] / filled['parts'],
           'distinct': filled['distinct'], 'eightgrams': state['eightgrams'], 'documents': state['after'][2],
           'skipped': state['skipped'], 'sources': job.settings['sources']}
  bloom.check_rate(facts)
  with progress_bar.bytes_bar('hashing', job.progress, total=filled['parts'] * bloom.PART_BYTES) as bar:
    bloom.complete(job.work / BITS, target, facts, bar.update)


def _require_space(job, shape):
  """Refuses a filter that the disk cannot hold (InputError)."""
  needed, free = shape.parts * bloom.PART_BYTES, shutil.disk_usage(job.work).free
  if needed > free:
    raise InputError(f'a filter with --capacity={job.capacity} and --rate={job.rate:g} takes {needed:,} '
                     f'bytes, and {free:,} are free in {job.work.parent}: lower the capacity, or give '
                     'another folder by --filters')


def n_drawers(units):
  """A power of two, so that a drawer has about DRAWER_KEYS keys."""
  bytes_of = lambda unit: unit.size * (
    1 if sources.is_uncompressed(unit) else TEXT_BYTES.get(unit.kind, COMPRESSED))
  wanted = max(1, sum(map(bytes_of, units)) / WORD_BYTES) / DRAWER_KEYS
  return min(MAX_DRAWERS, 1 << max(0, math.ceil(math.log2(wanted))))


def _read(job, state):
  """Puts the keys of all 8-grams into drawers."""
  after = After(*state['after'])
  units = job.reading.units
  sizes = [unit.size for unit in units]
  work = blocks.make_blocks(texts(job.reading, after), after, lambda _, piece: piece.text)
  with contextlib.ExitStack() as stack:
    drawers = [stack.enter_context(contextlib.closing(shards.AppendOnlyFile(_drawer(job.work, d), 8 * size)))
               for d, size in enumerate(state['sizes'])]
    whole = sum(sizes) * all(map(sources.is_uncompressed, units))
    bar = stack.enter_context(contextlib.closing(progress_bar.ProgressBar(
      'reading', sizes, whole, after.unit, state['bytes'], job.progress)))
    committed = time.monotonic()
    for block, (keys, n_bytes) in workers.map_in_order(make_reader, [len(drawers)], work, job.workers):
      for d, (drawer, part) in enumerate(zip(drawers, keys, strict=True)):
        drawer.write(part)
        state['sizes'][d] += len(part) // 8
      state['eightgrams'] += sum(map(len, keys)) // 8
      state['bytes'] += n_bytes
      state['skipped'] += sum(block.skipped.values())
      state['after'] = block.position
      bar.update(n_bytes, block.position.unit, f'{state["eightgrams"] / 1e6:.1f} M 8-grams')
      if time.monotonic() - committed > COMMIT_SECONDS:
        _commit(job, state, drawers)
        committed = time.monotonic()
    _commit(job, state, drawers)


def _commit(job, state, drawers):
  for drawer in drawers:
    drawer.sync()
  shards.save_state(job.work, state)


def _drawer(work, number):
  return work / f'drawer-{number:03d}'


def make_reader(drawers):
  """The function that workers apply to lists of texts: ([bytes of keys of each drawer], bytes of text)."""
  def read_block(texts):
    keys = np.sort(eightgrams.keys(texts).keys)
    borders = np.searchsorted(bloom.part_of(keys, drawers), np.arange(drawers + 1))
    return ([keys[start:stop].tobytes() for start, stop in itertools.pairwise(borders)],
            sum(len(text.encode()) for text in texts))
  return read_block


def _fill(job, state):
  """Fills the parts of the filter from the drawers, and throws these away."""
  filled, drawers = state['filled'], len(state['sizes'])
  path = job.work / BITS
  with open(path, 'ab', opener=atomic.no_follow) as file:
    file.truncate(filled['parts'] * bloom.PART_BYTES)
  atomic.sync(job.work)
  todo = ((d, (d, state['sizes'][d])) for d in range(filled['drawers'], drawers))
  settings = [str(job.work), drawers, filled['parts'], filled['hashes']]
  with progress_bar.bytes_bar('filling', job.progress, total=8 * state['eightgrams'],
                              initial=8 * sum(state['sizes'][:filled['drawers']])) as bar:
    for d, (distinct, rates) in workers.map_in_order(make_filler, settings, todo, job.workers):
      filled['drawers'] = d + 1
      filled['distinct'] += distinct
      filled['rates'] += rates
      shards.save_state(job.work, state)
      _drawer_file(job.work, d).unlink()
      bar.update(8 * state['sizes'][d])


def make_filler(work, drawers, parts, hashes):
  """The function that workers apply to (drawer, keys in it): (distinct keys, sum of rates of the parts)."""
  work, each = Path(work), parts // drawers
  flags = np.empty(bloom.PART_BITS, np.uint8)

  def fill_drawer(drawer):
    number, size = drawer
    keys = np.sort(np.fromfile(_drawer_file(work, number), np.uint64, size))
    keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]  # np.unique takes a hundred times as long
    first = number * each
    borders = np.searchsorted(bloom.part_of(keys, parts), np.arange(first, first + each + 1))
    rates = 0.0
    with open(work / BITS, 'r+b', opener=atomic.no_follow) as file:
      file.seek(first * bloom.PART_BYTES)
      for start, stop in itertools.pairwise(borders):
        bits, share = bloom.part_bits(keys[start:stop], hashes, flags)
        file.write(bits)
        rates += share ** hashes
      file.flush()
      os.fsync(file.fileno())
    return len(keys), rates
  return fill_drawer


def _drawer_file(work, number):
  """The file of a drawer, which is never complete: it goes when it has filled its parts."""
  path = _drawer(work, number)
  return path.with_name(path.name + shards.PARTIAL_SUFFIX)
