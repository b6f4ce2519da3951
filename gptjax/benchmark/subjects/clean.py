"""CPU time of `--clean=webtext`, compared with another version: python -m gptjax.benchmark clean

The time is that of the filters and of the signatures, which workers compute; the search for equal bands is
not in it. The text is the documentation that ships with Python, or --source. Each version runs in
a process of its own; they are interleaved, and the result is the median over turns.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import gptjax
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.command import run
from gptjax.command.flag_types import integer, real
from gptjax.data.clean import webtext
from gptjax.data.sources import documents, files
from gptjax.storage.files import paths

HERE, OTHER = 'this version', 'the other'
BLOCK = 1 << 20  # characters that are filtered together, as in `prepare`


def write_texts(source, megabytes, characters, path):
  """Write texts as lines of JSON; return (number of texts, megabytes in UTF-8)."""
  n, size = 0, 0
  with open(path, 'w', encoding='utf-8') as file:
    for text in (piece.text for unit in documents.units([source], '')
                 for piece in documents.usable_pieces(unit, '', '')):
      step = characters or max(1, len(text))
      for start in range(0, len(text), step):
        part = text[start:start + step]
        file.write(json.dumps(part) + '\n')
        n, size = n + 1, size + len(part.encode())
        if size >= megabytes * 1e6:
          return n, size / 1e6
  return n, size / 1e6


def seconds(function, work):
  """Return the CPU seconds of this process and its threads for all texts."""
  start = time.process_time()
  function(work)
  return time.process_time() - start


def worker(path):
  """Answer each request with CPU seconds: {'all', 'filters': without near duplicates}."""
  with open(path, encoding='utf-8') as file:
    texts = [json.loads(line) for line in file]
  work = [files.Piece(text, '', number.to_bytes(16, 'little'), 0, len(text))
          for number, text in enumerate(texts)]
  every, filters = (judging(webtext.make_recipe('webtext', without, '', ''))
                    for without in ((), ('near_duplicate',)))
  return serve({}, lambda _: {'all': seconds(every, work), 'filters': seconds(filters, work)})


def judging(recipe):
  """Return the function of a list of pieces that judges them, of any version."""
  try:
    from gptjax.data.stages import judge
  except ImportError:  # version 0.2.0 and earlier
    from gptjax.data.clean import duplicates
    judge_block = duplicates.make_feature_function(recipe)
    return lambda pieces: [judge_block([(0, piece.digest, piece.text, {}) for piece in block])
                           for block in blocks(pieces)]
  return lambda pieces: judge.features(pieces, recipe)


def blocks(pieces):
  """Yield lists of pieces of about BLOCK characters."""
  block, size = [], 0
  for piece in pieces:
    block.append(piece)
    size += len(piece.text)
    if size >= BLOCK:
      yield block
      block, size = [], 0
  yield block


def command(checkout, texts):
  """Return the command line of a worker: this file, with the other modules of a checkout of gptjax."""
  program = f'import runpy; runpy.run_path({__file__!r})["worker"]({str(texts)!r})'
  return ['env', f'PYTHONPATH={checkout}', sys.executable, '-P', '-c', program]


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark clean', description=__doc__)
  parser.add_argument('--source', default='python:', help='KIND:PATH, as for `gptjax prepare`')
  parser.add_argument('--characters', type=integer(0), default=4000,
                      help='of a document: longer ones are cut into several; 0: they are not')
  parser.add_argument('--megabytes', type=real(0.01, 1e6), default=4, help='of text, at most')
  parser.add_argument('--turns', type=integer(1, 1000), default=5,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  parser.add_argument('--against', type=paths.flag, default='', help='folder of another version of gptjax')
  args = parser.parse_args(argv)
  checkouts = {HERE: Path(gptjax.__file__).parent.parent}
  if args.against:
    checkouts[OTHER] = Path(args.against).absolute()
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'texts.jsonl'
    n, size = write_texts(args.source, args.megabytes, args.characters, path)
    machine = machine_info(('numpy',))
    print(f'{size:.1f} MB of {args.source} in {n:,} documents, {machine["cores"]} cores of '
          f'{machine["processor"]}, {machine["date"]}; CPU ms per MB, medians of {args.turns} turns\n')
    answers = interleaved({name: command(checkout, path) for name, checkout in checkouts.items()}, None,
                          args.turns)
  print(f'{"":<14}{"filters":>10}{"signatures":>12}{"all":>10}{"min":>10}{"max":>10}')
  for name, (_, turns) in answers.items():
    filters, both = ([1e3 * turn[part] / size for turn in turns] for part in ('filters', 'all'))
    signatures = statistics.median(b - a for a, b in zip(filters, both, strict=True))
    print(f'{name:<14}{statistics.median(filters):>10.1f}{signatures:>12.1f}{statistics.median(both):>10.1f}'
          f'{min(both):>10.1f}{max(both):>10.1f}')
  if args.against:
    here, other = ([turn['all'] for turn in turns] for _, turns in answers.values())
    print(f'\nspeed relative to the other: {speedup(here, other):.1f} x')
  return 0
