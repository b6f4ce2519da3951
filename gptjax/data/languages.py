"""Counts the languages of documents: how many documents, and how many bytes of text, are in which language.

    python -m gptjax.data.languages --source=corpus:corpora/web

As in GPT-2, section 3.7, the detector is CLD2, which reads bytes: it divides a document into stretches of one
language each. The bytes of a language are those of its stretches; a document counts for the language with
most of its bytes. What CLD2 cannot tell, such as code and numbers, is `un`.

With --out=DIR the counts are also in DIR/manifest.json, the command can be killed and started again, and its
only stage, `scan`, can be divided over any number of machines, as those of `prepare`; the counts are the
same.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.languages import parser
  startup.begin('languages', 'stopped', stdout_is_result=True)
  early.handle_help(parser, 'languages')

import collections
import re
import tempfile
from importlib import metadata
from pathlib import Path

from gptjax.command import run
from gptjax.command.parsers.languages import parser
from gptjax.data import engines
from gptjax.data.links import url_list
from gptjax.data.sources import documents
from gptjax.data.stages import folder, parts, work
from gptjax.data.stages import run as stages
from gptjax.errors import InputError
from gptjax.storage.files import paths

UNKNOWN = 'un'
# What CLD2 does not take: control characters and numbers that are not characters.
_REFUSED = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef' + ''.join(
  f'{chr(plane << 16 | 0xfffe)}{chr(plane << 16 | 0xffff)}' for plane in range(17)) + ']')


def count(source, out='', *, tfds_dir='', on_error='stop', document_separator='', urls=(), workers=1,
          progress=True, stage=engines.ALL, task=0, tasks=1, run_stage=None):
  """Count the languages of the documents of sources.

  Args:
    source: list of sources (see `sources.documents`).
    out: folder of the counts, here or in a bucket; '': they are only returned.
    tfds_dir, on_error, document_separator, urls, workers, progress, stage, task, tasks, run_stage: as for
      `prepare`.

  Returns:
    The manifest, a dict: `languages` is {code: {'documents', 'bytes': int}}; None if it is not complete after
    this task.

  Raises:
    InputError: a missing source; an unusable document, with its file and line; a folder that holds
      something else.
  """
  if not out and (stage != engines.ALL or run_stage):
    raise InputError('--out=DIR is missing, the folder that all tasks share')
  _detector()
  units = documents.units(source, tfds_dir)
  chosen = url_list.read_for(urls, units)
  settings = {
    'sources': documents.recorded_sources(source, units), 'inputs': documents.units_digest(units),
    'document_separator': document_separator, 'urls': chosen and chosen.digest,
    'libraries': {'pycld2': metadata.version('pycld2'), **(documents.library_versions(units) or {})}}
  reading = parts.ReadOptions(units, document_separator, tfds_dir, on_error == 'stop', urls=chosen)
  with tempfile.TemporaryDirectory() as temporary:
    job = folder.Job(reading, paths.parsed(out or Path(temporary) / 'languages'), settings, None, PIPELINE,
                     progress, parts.borders(units), {})
    return folder.fill(job, stage, task, tasks, workers, run_stage)


def _detector():
  try:
    import pycld2
  except ModuleNotFoundError:
    raise InputError("the languages are counted by CLD2: pip install 'gptjax[webtext]' (the module pycld2 is "
                     'missing)') from None
  return pycld2


def _stages():
  return {'scan': stages.Stage(_n_parts, _make_scan, 'scanning', parts.text_bytes)}


def _n_parts(job):
  return job.n_parts


def _make_scan(job):
  return lambda number: scan(job, number)


def scan(job, number):
  """Write the counts of a part: the record of the result."""
  counts, skipped, document = collections.defaultdict(collections.Counter), collections.Counter(), None
  for piece in parts.read(job, number):
    if piece.problem:
      skipped[piece.problem.partition(':')[0]] += 1
      continue
    found = languages(piece.text)
    document = found + (document if piece.start else collections.Counter())
    for language, size in found.items():
      counts[language]['bytes'] += size
    if piece.start + len(piece.text) == piece.length:
      counts[_main(document)]['documents'] += 1
  work.write_record(job.work / 'scan', f'{number:05d}', {'languages': counts, 'skipped': skipped})


def languages(text):
  """Return Counter {code of a language: bytes}, whose sum is that of the bytes of a text."""
  text = _REFUSED.sub(' ', text)
  size = len(text.encode())
  _, _, _, stretches = _detector().detect(text, isPlainText=True, returnVectors=True, bestEffort=True)
  found = collections.Counter()
  for _, length, _, code in stretches:
    found[code] += length
  found[UNKNOWN] += size - found.total()  # if nothing is found, there are no stretches
  return +found


def _main(counts):
  """Return the language with most bytes; of several, the first in the alphabet."""
  return min(counts, key=lambda language: (-counts[language], language), default=UNKNOWN)


def _manifest(job):
  """Return the content of the manifest."""
  found, skipped = collections.defaultdict(collections.Counter), collections.Counter()
  for record in work.read_records(job, 'scan', job.n_parts):
    for language, counts in record['languages'].items():
      found[language].update(counts)
    skipped.update(record['skipped'])
  return {'version': 1, 'skipped': dict(skipped),
          'languages': {language: {'documents': counts['documents'], 'bytes': counts['bytes']}
                        for language, counts in found.items()}}


PIPELINE = folder.Pipeline(_stages, _manifest)


def table(manifest):
  """Return the table of a manifest: a line per language, those with most bytes first."""
  names = {code: name.title() for name, code in _detector().LANGUAGES}
  rows = sorted(manifest['languages'].items(), key=lambda item: (-item[1]['bytes'], item[0]))
  total = sum(counts['bytes'] for _, counts in rows)
  lines = [f'{"language":<24}{"documents":>14}{"bytes":>18}{"share":>10}']
  for code, counts in rows:
    label = f'{code} {names.get(code, "Unknown")[:20]}'
    share = counts['bytes'] / total
    lines.append(f'{label:<24}{counts["documents"]:>14,}{counts["bytes"]:>18,}{share:>10.3%}')
  documents_of_all = sum(counts['documents'] for _, counts in rows)
  lines.append(f'{"all":<24}{documents_of_all:>14,}{total:>18,}')
  lines += [f'skipped {times:,}: {reason}' for reason, times in sorted(manifest['skipped'].items())]
  return '\n'.join(lines)


def main(arguments):
  own, engine_flags = engines.split_flags(arguments)
  flags = vars(parser().parse_args(own))
  flags['run_stage'] = engines.choose(flags.pop('engine'), flags['stage'], engine_flags)
  separator = flags.pop('document_separator').replace('\\n', '\n').replace('\\t', '\t')
  manifest = count(**flags, document_separator=separator)
  if manifest:
    print(table(manifest))
  elif flags['stage'] != engines.STATUS:
    print(engines.share_line(flags['stage'], flags['task'], flags['tasks']))


if __name__ == '__main__':
  run.run(main, 'languages')
