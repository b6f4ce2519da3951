"""Text that a model was trained on, which is read in parts by any number of processes and machines.

A method of the study (`build`: a Bloom filter; `exact`) reads each part and writes a result into a folder
`NAME-KEY-DIVISION.work`; when all are there, they become the file `NAME-KEY` beside it. A killed task is done
again, and the file does not depend on how the work is divided. Results of another version of gptjax, which
may divide the texts in another way, have another DIVISION, and are not used. The stages:

    read  for each part of the texts: what the method needs of its 8-grams
    fill  for each range of keys: the bits of the filter    (bloom)
"""

import json
from typing import Any, NamedTuple

import gptjax
from gptjax.command import bars
from gptjax.data import workers
from gptjax.data.ngrams import keys, windows
from gptjax.data.sources import documents
from gptjax.data.stages import parts, work
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.storage import ownership
from gptjax.storage.files import access, atomic, buckets
from gptjax.storage.files.paths import Url

STAGES = 'read', 'fill'
BLOCK_CHARACTERS = 1 << 20  # whose keys are computed together


class Method(NamedTuple):
  """How 8-grams are looked up in a training text; the functions take it as their first argument.

  suffix: of the final file.
  stages: {stage: (count, make)}: `count(text)` is the number of its results, `make(text, number)` writes one.
  finish: `finish(text)` writes the final file from the results.
  opened: `opened(text)` returns it: an object with `contains(keys)` and `metadata`.
  """
  suffix: str
  stages: dict
  finish: Any
  opened: Any


class TrainingText(NamedTuple):
  """Sources, and how to look up 8-grams in them.

  name: `train`, or the name of a test set whose training split this is.
  sources: as they are recorded.
  parameters: of the method.
  borders: of the parts.
  folder: of the final file, Path or Url.
  key: of everything that it depends on.
  known: what this process has read of the work folder.
  """
  name: str
  sources: list
  reading: parts.ReadOptions
  method: Method
  parameters: Any
  borders: list
  folder: Any
  key: str
  progress: bool
  known: dict

  @property
  def n_parts(self):
    return len(self.borders) - 1

  @property
  def out(self):
    return self.folder / f'{self.name}-{self.key}{self.method.suffix}'

  @property
  def work(self):
    division = json.dumps([work.LAYOUT, gptjax.__version__, self.borders])
    return self.folder / f'{self.name}-{self.key}-{tokenizer_files.digest(division.encode())[:8]}.work'


def training_text(name, sources, folder, method, parameters, settings, *, tfds_dir, on_error, separator,
                  progress):
  """Return a TrainingText.

  Args:
    name, folder, method, parameters, progress: as in TrainingText.
    sources: list of KIND:WHERE.
    settings: function of the units that returns what the result depends on, as text.
    tfds_dir, on_error, separator: as for `data.prepare`.

  Raises:
    InputError: a source is missing.
  """
  units = documents.units(sources, tfds_dir)
  reading = parts.ReadOptions(units, separator, tfds_dir, on_error == 'stop')
  libraries = documents.library_versions(units)
  state = settings(units) + (json.dumps(libraries, sort_keys=True) if libraries else '')
  key = tokenizer_files.digest(state.encode())[:12]
  return TrainingText(name, documents.recorded_sources(sources, units), reading, method, parameters,
                      parts.borders(units), folder, key, progress, {})


def n_parts(text):
  """Return the number of parts: of results of `read`."""
  return text.n_parts


def read_keys(text, number, counts):
  """Yield uint64[n], the keys of the 8-grams of a part, in blocks.

  Args:
    text: TrainingText.
    number: of the part.
    counts: dict to which the part's `documents`, `skipped` ones and `eightgrams` are written.
  """
  counts |= {'documents': 0, 'skipped': 0, 'eightgrams': 0}
  stream, batch, size = windows.Windows(keys.N), [], 0
  for piece in parts.read(text, number):
    counts['documents'] += piece.start == 0
    counts['skipped'] += bool(piece.problem)
    batch.append(stream.add(piece).text)
    size += len(batch[-1])
    if size >= BLOCK_CHARACTERS:
      yield _counted(batch, counts)
      batch, size = [], 0
  yield _counted(batch, counts)


def _counted(batch, counts):
  found = keys.ngram_keys(batch).keys
  counts['eightgrams'] += len(found)
  return found


def totals(text):
  """Return the sums of the counts of all parts, after `read`."""
  records = work.read_records(text, 'read', text.n_parts)
  return {name: sum(record[name] for record in records) for name in ('documents', 'skipped', 'eightgrams')}


def is_finished(text):
  """Return whether the final file is there."""
  return access.is_file(text.out)


def complete(text, n_workers):
  """Do all stages of a text that are left on this machine, write the final file, and return it opened."""
  if not is_finished(text):
    with ownership.own_folder(text.work):
      if not is_finished(text):  # another process may have completed it
        with _workers([text], n_workers) as map_items:
          for stage in text.method.stages:
            _run([text], stage, [(0, number) for number in range(count(text, stage))], map_items)
        text.method.finish(text)
  _remove_work(text)
  return text.method.opened(text)


def run_task(texts, stage, task, tasks, n_workers):
  """Run the share of task `task` of `tasks` in a stage of all texts.

  Raises:
    InputError: the method has no such stage, or the stage before is not complete.
  """
  if texts and stage not in texts[0].method.stages:
    raise InputError(f'--stage={stage}: this method has no such stage, only '
                     f'{" and ".join([*texts[0].method.stages, "report"])}')
  items = [(which, number) for which, text in enumerate(texts) for number in range(count(text, stage))]
  first, end = (-(-one * len(items) // tasks) for one in (task, task + 1))  # the first tasks have one more
  share = items[first:end]
  try:
    with _workers(texts, n_workers) as map_items:
      _run(texts, stage, share, map_items)
  except (InputError, OSError):
    if not all(map(is_finished, texts)):
      raise
  for text in filter(is_finished, texts):  # by another task meanwhile, which has removed the work folder
    _remove_work(text)


def finished(text):
  """Return the final file, opened, after all tasks of all stages.

  Raises:
    InputError: a stage is not complete.
  """
  if not is_finished(text):
    with ownership.own_folder(text.work):  # two that finish a Bloom filter at the same time would damage it
      if not is_finished(text):
        for stage in text.method.stages:
          work.read_records(text, stage, count(text, stage))
        text.method.finish(text)
  _remove_work(text)
  return text.method.opened(text)


def count(text, stage):
  """Return the number of results of a stage; 0 if the text is finished."""
  return 0 if is_finished(text) else text.method.stages[stage][0](text)


def _run(texts, stage, items, map_items):
  """Write the results (index of a text, number) of a stage that are left."""
  done = {}
  for which in {which for which, _ in items}:
    access.make_folder(texts[which].work / stage)
    done[which] = work.complete(texts[which].work / stage)
  left = [(which, number) for which, number in items if f'{number:05d}' not in done[which]]
  sizes = {which: parts.text_bytes(texts[which]) for which in done} if stage == 'read' else {}
  size = lambda item: sizes[item[0]][item[1]] if sizes else 1
  unit = {'unit': 'B', 'unit_scale': True} if stage == 'read' else {'unit': 'range'}
  shown = any(text.progress for text in texts)
  with bars.bar(shown=shown, desc=f'overlap: {stage}', total=sum(map(size, left)), **unit) as bar:
    for item, _ in map_items((item, (stage, *item)) for item in left):
      bar.update(size(item))


def _workers(texts, n_workers):
  return workers.pool(make_task, [texts], max(1, min(n_workers, sum(text.n_parts for text in texts))))


def make_task(texts):
  """Return the function of a worker: of (stage, index of a text, number), it writes a result."""
  return lambda item: texts[item[1]].method.stages[item[0]][1](texts[item[1]], item[2])


def _remove_work(text):
  """Remove what only the stages needed, also after a kill at the end, and what other versions have left."""
  if not isinstance(text.folder, Url):
    atomic.sync(text.folder)
    atomic.remove_leftovers(text.folder, text.out.name)  # of a process that was killed while it wrote it
  for name in access.names(text.folder):
    if name.startswith(f'{text.name}-{text.key}') and name.endswith('.work'):
      folder = text.folder / name
      buckets.remove_tree(folder) if isinstance(folder, Url) else atomic.remove(folder)
