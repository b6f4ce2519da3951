"""Speed of preparing and of reading a corpus, compared with the tokenizer: python -m gptjax.benchmark data

The text is the documentation that ships with Python, repeated, with a BPE trained on it; --source and
--tokenizer choose others. Each contender runs in a process of its own; they are interleaved, and the result
is the median over turns.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from gptjax import defaults
from gptjax.benchmark import results
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.command import run
from gptjax.command.flag_types import integer, real
from gptjax.data import prepare
from gptjax.data.corpus import pipeline, reader
from gptjax.data.sources import documents
from gptjax.data.tokenizers import byte_bpe, loading, training
from gptjax.storage.files import paths

ENCODE, ONE, TWO, READ = 'encode_ordinary', 'prepare-1', 'prepare-2', 'read'
LABELS = {ENCODE: 'tiktoken.encode_ordinary', ONE: 'prepare, 1 worker', TWO: 'prepare, 2 workers'}
SEQ_LEN, BATCH, N_BATCHES = 1024, 64, 400  # of the reading benchmark; a window has SEQ_LEN + 1 tokens
LATE_STEP = 10**9
HOSTS = 64  # of a large run; each reads BATCH rows
PACKAGES = ('numpy', 'tiktoken', 'tensorflow')


def write_text(source, tfds_dir, megabytes, path):
  """Write documents of a source as JSON lines, repeated until there is enough text.

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
  """Prepare the text of the benchmark with its tokenizer, without cleaning."""
  prepare.prepare([f'jsonl:{folder}/text.jsonl'], f'{folder}/tokenizer', out, validation_fraction=0.005,
                  clean='', workers=workers, tfds_dir='', on_error='stop', progress=False)


def worker(contender, folder):
  """Answer each request with the seconds for the whole text; for READ with the dict of `read_speeds`."""
  if contender == READ:
    corpus = reader.open_corpus(f'{folder}/corpus', 'train', verify=False)
    return serve({}, functools.partial(read_speeds, corpus))
  if contender == ENCODE:
    with open(f'{folder}/text.jsonl', encoding='utf-8') as file:
      texts = [json.loads(line)['text'] for line in file]
    encode = loading.load(f'{folder}/tokenizer').coder.encode_ordinary

  def answer(_):
    with tempfile.TemporaryDirectory(dir=folder) as out:
      start = time.perf_counter()
      if contender == ENCODE:
        for text in texts:
          encode(text)
      else:
        prepare_text(folder, out, {ONE: 1, TWO: 2}[contender])
      return time.perf_counter() - start

  return serve({}, answer)


def read_speeds(corpus, _):
  """Speeds of reading, and the medians of the seconds of single batches.

  Returns:
    {'pipeline', 'plain': tokens per second; 'first', 'late': seconds of batch 0 and of batch LATE_STEP;
    'host': seconds of batch 0 of the last of HOSTS hosts}.
  """
  def make_batch(step, host=0, hosts=1):
    return reader.batch([corpus], [1], 0, step, hosts * BATCH, SEQ_LEN, True,
                        slice(host * BATCH, (host + 1) * BATCH), shift=True)

  def speed(batches):
    next(batches)
    start = time.perf_counter()
    n = sum(batch['targets'].size for batch in batches)
    return n / (time.perf_counter() - start)

  def seconds(*arguments):
    start = time.perf_counter()
    make_batch(*arguments)
    return time.perf_counter() - start

  if importlib.util.find_spec('tensorflow'):
    pipeline.import_tensorflow()  # else batches come without it until it is imported
  singles = [(seconds(0), seconds(LATE_STEP), seconds(0, HOSTS - 1, HOSTS)) for _ in range(100)]
  return {'pipeline': speed(pipeline.batches(make_batch, 0, N_BATCHES + 1, workers=2,
                                             prefetch=defaults.fields()['data']['prefetch'])),
          'plain': speed(pipeline.synchronous_batches(make_batch, 0, N_BATCHES + 1)),
          **dict(zip(('first', 'late', 'host'), map(statistics.median, zip(*singles, strict=True)),
                     strict=True))}


def measure(folder, turns):
  """({contender: [seconds per turn]}, {key of `read_speeds`: [value per turn]})."""
  command = [sys.executable, '-m', 'gptjax.benchmark', 'data', f'--folder={folder}', '--worker']
  prepare_results = interleaved({name: [*command, name] for name in LABELS}, None, turns)
  _, read_results = interleaved({READ: [*command, READ]}, None, turns)[READ]
  return ({name: seconds for name, (_, seconds) in prepare_results.items()},
          {name: [turn[name] for turn in read_results] for name in read_results[0]})


def make_gates(seconds, read):
  """Gates of the medians, see `results.gate`."""
  late, host = (statistics.median(b / a for a, b in zip(read['first'], read[name], strict=True))
                for name in ('late', 'host'))
  return [results.gate('prepare, 1 worker, against encode_ordinary', '>=', 0.7,
                       speedup(seconds[ONE], seconds[ENCODE])),
          results.gate('prepare, 2 workers against 1', '>=', 1.7, speedup(seconds[TWO], seconds[ONE])),
          # Runs read by tf.data, but on CPUs without it: the slower of the two.
          results.gate(f'reading windows of {SEQ_LEN + 1:,}, M tokens/s', '>=', 20,
                       min(statistics.median(read[way]) for way in ('pipeline', 'plain')) / 1e6),
          results.gate('batch 10^9 against batch 0, time', '<=', 1.1, late),
          results.gate(f'rows of one of {HOSTS} hosts against one alone, time', '<=', 1.1, host)]


def make_rows(seconds, read, size):
  """Rows of `results`; tiktoken alone is only a part of preparing."""
  rows = [results.row('preparing a corpus', LABELS[name], 'MB/s', [size / each for each in values],
                      speedup(seconds[ONE], values) if name == ENCODE else None)
          for name, values in seconds.items()]
  return rows + [results.row('reading batches', label, 'tokens/s', read[name])
                 for name, label in (('pipeline', 'tf.data'), ('plain', 'NumPy loop'))]


def print_table(rows, gates):
  """Print the rows and the gates."""
  print(f'{"":<22}{"":<28}{"median":>10}{"min":>10}{"max":>10}')
  for row in rows:
    scale = 1e6 if row['unit'] == 'tokens/s' else 1
    figures = ''.join(f'{row[name] / scale:>10.2f}' for name in ('median', 'least', 'most'))
    print(f'{row["what"]:<22}{row["who"]:<28}{figures}  {"M " * (scale > 1)}{row["unit"]}')
  print()
  results.print_gates(gates)


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark data', description=__doc__)
  parser.add_argument('--source', default='python:', help='KIND:PATH, as for `gptjax prepare`')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='folder of the data sets for tfds:')
  parser.add_argument('--tokenizer', default='', help='gpt2, gpt2:DIR or bpe:DIR; default: train one')
  parser.add_argument('--vocab_size', type=training.VOCAB_SIZES, default=8192,
                      help='entries of the trained tokenizer')
  parser.add_argument('--megabytes', type=real(0.01, 1e6), default=200,
                      help='of text per turn; repeated if necessary')
  parser.add_argument('--turns', type=integer(1, 1000), default=3,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  results.add_out(parser)
  parser.add_argument('--worker', choices=(*LABELS, READ), help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=paths.flag, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(args.worker, args.folder)
  with tempfile.TemporaryDirectory() as folder:
    texts, size = write_text(args.source, args.tfds_dir, args.megabytes, Path(folder) / 'text.jsonl')
    tokenizer = loading.load(args.tokenizer) if args.tokenizer else byte_bpe.train_bpe(texts, args.vocab_size)
    tokenizer.save(f'{folder}/tokenizer')
    prepare_text(folder, f'{folder}/corpus', workers=2)
    if not isinstance(tokenizer, byte_bpe.ByteBPE):
      parser.error(f'--tokenizer={args.tokenizer} is not a byte-level BPE: tiktoken encodes no other kind')
    machine = machine_info(PACKAGES)
    print(f'{size:.0f} MB of {args.source}, {tokenizer.name} of {tokenizer.n_vocab:,} entries, '
          f'{machine["cores"]} cores of {machine["processor"]}, {machine["date"]}; medians of {args.turns} '
          'turns\n')
    seconds, read_results = measure(folder, args.turns)
  gates, rows = make_gates(seconds, read_results), make_rows(seconds, read_results, size)
  print_table(rows, gates)
  results.write(args.out, 'data', machine, rows, gates, source=args.source, megabytes=size, seconds=seconds,
                tokenizer=[tokenizer.name, tokenizer.n_vocab, tokenizer.digest], reading=read_results)
  return 0
