"""Speed of preparing a corpus, beside the tokenizer alone, and of reading it: python -m gptjax.benchmark data

The text is the documentation that ships with Python, repeated, with a BPE trained on it, unless --source and
--tokenizer name others. Each contender works in a process of its own, by turns; medians count.
"""

import argparse
import functools
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from gptjax import defaults
from gptjax.benchmark import results
from gptjax.benchmark.machine import machine
from gptjax.benchmark.turns import by_turns, serve, times_faster
from gptjax.command import run
from gptjax.command.flag_types import integer, real
from gptjax.data import prepare
from gptjax.data.corpus import pipeline, reader
from gptjax.data.sources import documents
from gptjax.data.tokenizers import byte_bpe, loading, training
from gptjax.files import paths

ENCODE, ONE, TWO, READ = 'encode_ordinary', 'prepare-1', 'prepare-2', 'read'
LABELS = {ENCODE: 'tiktoken.encode_ordinary', ONE: 'prepare, 1 worker', TWO: 'prepare, 2 workers'}
SEQ_LEN, BATCH, N_BATCHES = 1024, 64, 400  # of the batches read; a window is SEQ_LEN + 1 tokens
LATE = 10**9
PACKAGES = ('numpy', 'tiktoken', 'tensorflow')


def write_text(source, tfds_dir, megabytes, path):
  """Writes documents of a source as JSON lines, again and again until there is enough.

  Returns:
    (the documents without repeats, megabytes of text written).
  """
  texts, size = [], 0
  for piece in (piece for unit in documents.units([source], tfds_dir)
                for piece in documents.usable_pieces(unit, '', tfds_dir)):
    texts.append(piece.text)
    size += len(piece.text.encode())
    if size >= megabytes * 1e6:
      break
  size = 0
  with open(path, 'w', encoding='utf-8') as file:
    for text in itertools.cycle(texts):
      if size >= megabytes * 1e6:
        return texts, size / 1e6
      file.write(json.dumps({'text': text}) + '\n')
      size += len(text.encode())


def prepare_text(folder, out, workers):
  """Prepares the text of the benchmark with its tokenizer, nothing cleaned."""
  prepare.prepare([f'jsonl:{folder}/text.jsonl'], f'{folder}/tokenizer', out, validation_fraction=0.005,
                  clean='', workers=workers, tfds_dir='', on_error='stop', progress=False)


def worker(contender, folder):
  """Answers each line with the seconds of the whole text; READ with the dict of `reading`."""
  if contender == READ:
    corpus = reader.open_corpus(f'{folder}/corpus', 'train', verify=False)
    return serve({}, functools.partial(reading, corpus))
  if contender == ENCODE:
    with open(f'{folder}/text.jsonl', encoding='utf-8') as file:
      texts = [json.loads(line)['text'] for line in file]
    encode = loading.load(f'{folder}/tokenizer').coder.encode_ordinary

  def answer(_):
    with tempfile.TemporaryDirectory(dir=folder) as out:
      began = time.perf_counter()
      if contender == ENCODE:
        for text in texts:
          encode(text)
      else:
        prepare_text(folder, out, {ONE: 1, TWO: 2}[contender])
      return time.perf_counter() - began

  return serve({}, answer)


def reading(corpus, _):
  """{'pipeline', 'plain': tokens a second; 'first', 'late': seconds of batch 0 and of batch LATE}."""
  def make(step):
    return reader.batch([corpus], [1], 0, step, BATCH, SEQ_LEN, True, shift=True)

  def speed(batches):
    next(batches)  # loads TensorFlow
    began = time.perf_counter()
    n = sum(batch['targets'].size for batch in batches)
    return n / (time.perf_counter() - began)

  def seconds(step):
    began = time.perf_counter()
    make(step)
    return time.perf_counter() - began

  pairs = [(seconds(0), seconds(LATE)) for _ in range(100)]
  return {'pipeline': speed(pipeline.batches(make, 0, N_BATCHES + 1, workers=2,
                                             prefetch=defaults.fields()['data']['prefetch'])),
          'plain': speed(pipeline.synchronous_batches(make, 0, N_BATCHES + 1)),
          **dict(zip(('first', 'late'), map(statistics.median, zip(*pairs, strict=True)), strict=True))}


def measure(folder, turns):
  """({contender: [seconds of each turn]}, {name of `reading`: [figure of each turn]})."""
  run = [sys.executable, '-m', 'gptjax.benchmark', 'data', f'--folder={folder}', '--worker']
  preparing = by_turns({name: [*run, name] for name in LABELS}, None, turns)
  _, read = by_turns({READ: [*run, READ]}, None, turns)[READ]
  return ({name: seconds for name, (_, seconds) in preparing.items()},
          {name: [turn[name] for turn in read] for name in read[0]})


def gates(seconds, read):
  """[{'what', 'wanted', 'found', 'holds'}]: what this project asks of itself."""
  late = statistics.median(b / a for a, b in zip(read['first'], read['late'], strict=True))
  return [results.gate('prepare, 1 worker, against encode_ordinary', '>=', 0.7,
                       times_faster(seconds[ONE], seconds[ENCODE])),
          results.gate('prepare, 2 workers against 1', '>=', 1.7, times_faster(seconds[TWO], seconds[ONE])),
          results.gate(f'reading windows of {SEQ_LEN + 1:,}, M tokens/s', '>=', 20,
                       statistics.median(read['pipeline']) / 1e6),
          results.gate('batch 10^9 against batch 0, time', '<=', 1.1, late)]


def rows_of(seconds, read, size):
  """Rows of `results`; beside tiktoken alone, which is not all of preparing."""
  rows = [results.row('preparing a corpus', LABELS[name], 'MB/s', [size / each for each in taken],
                      times_faster(seconds[ONE], taken) if name == ENCODE else None)
          for name, taken in seconds.items()]
  return rows + [results.row('reading batches', label, 'tokens/s', read[name])
                 for name, label in (('pipeline', 'tf.data'), ('plain', 'NumPy loop'))]


def show(rows, checks):
  print(f'{"":<22}{"":<28}{"median":>10}{"least":>10}{"most":>10}')
  for row in rows:
    million = 1e6 if row['unit'] == 'tokens/s' else 1
    figures = ''.join(f'{row[name] / million:>10.2f}' for name in ('median', 'least', 'most'))
    print(f'{row["what"]:<22}{row["who"]:<28}{figures}  {"M " * (million > 1)}{row["unit"]}')
  print()
  results.show_gates(checks)


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark data', description=__doc__)
  parser.add_argument('--source', default='python:', help='KIND:WHERE, as for gptjax.data.prepare')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='where tfds: finds its data sets')
  parser.add_argument('--tokenizer', default='', help='gpt2, gpt2:DIR or bpe:DIR; else one is trained')
  parser.add_argument('--vocab_size', type=training.VOCAB_SIZES, default=8192,
                      help='entries of the one that is trained')
  parser.add_argument('--megabytes', type=real(0.01, 1e6), default=200,
                      help='of text a turn; repeated if need be')
  parser.add_argument('--turns', type=integer(1, 1000), default=3)
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  parser.add_argument('--worker', choices=(*LABELS, READ), help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=paths.flag, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(args.worker, args.folder)
  with tempfile.TemporaryDirectory() as folder:
    texts, size = write_text(args.source, args.tfds_dir, args.megabytes, Path(folder) / 'text.jsonl')
    made = loading.load(args.tokenizer) if args.tokenizer else byte_bpe.train_bpe(texts, args.vocab_size)
    made.save(f'{folder}/tokenizer')
    prepare_text(folder, f'{folder}/corpus', workers=2)
    if not isinstance(made, byte_bpe.ByteBPE):
      parser.error(f'--tokenizer={args.tokenizer} is not a byte-level BPE, which is what tiktoken encodes')
    where = machine(PACKAGES)
    print(f'{size:.0f} MB of {args.source}, {made.name} of {made.n_vocab:,} entries, {where["cores"]} cores '
          f'of {where["processor"]}, {where["date"]}; medians of {args.turns} turns\n')
    seconds, read = measure(folder, args.turns)
  checks, rows = gates(seconds, read), rows_of(seconds, read, size)
  show(rows, checks)
  results.write(args.out, 'data', where, rows, checks, source=args.source, megabytes=size, seconds=seconds,
                tokenizer=[made.name, made.n_vocab, made.digest], reading=read)
  return 0
