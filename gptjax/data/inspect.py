"""Shows a corpus: counts, damage, lengths of documents, and the text of a document or a batch.

  python -m gptjax.data.inspect DIR                       counts, hashes checked, lengths
  python -m gptjax.data.inspect DIR --document=3          document 3
  python -m gptjax.data.inspect --workdir=W --step=4711   what a run read for its update 4711
  python -m gptjax.data.inspect DIR DIR --workdir=W --step=4711    the same, if its corpora have moved

Updates are counted from 0; the loss of update s stands in metrics.jsonl as step s + 1.
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('inspect', 'stopped', product=True)

import argparse
from pathlib import Path

import numpy as np

from gptjax.command import figures, run
from gptjax.command.flag_types import SEED, integer
from gptjax.data.corpus import corpus_manifest, reader
from gptjax.data.corpus import mixture as mixtures
from gptjax.errors import InputError
from gptjax.files import paths, run_config
from gptjax.kernels import cpu
from gptjax.storage import rewind_log
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted
from gptjax.text.words import plural

BAR = 40  # characters of the longest bar of the histogram


def main(argv):
  """Prints what `argv` asks for; ValueError, one line, if it cannot."""
  args = _parse(argv)
  args.weights, args.digest, args.rewinds = [1.0], None, []
  if args.workdir:
    _take_from_workdir(args)
  if not args.corpus:
    raise InputError('say which corpus: its folder, or --workdir of a run')
  if len(args.corpus) > 1 and (args.step is None or not args.workdir):
    raise InputError(f'name one of {" ".join(args.corpus)}: several are for --step, and --workdir of the run '
                     'that read them')
  if args.step is not None and args.split != 'train':
    raise InputError('--step shows what training read, the split train: leave --split out')
  if args.step is not None:
    mixture = mixtures.open_mixture(args.corpus, args.weights, verify=False)
    if args.digest not in (None, mixture.digest):
      raise InputError(f'{" ".join(args.corpus)} is not what the run in {args.workdir} read (digest '
                       f'{mixture.digest[:12]}, not {args.digest[:12]}): name the corpora that it read')
    show_batch(mixture, args.step, args.rewinds, args.batch_size, args.seq_len, args.seed,
               args.cross_documents, args.shift_windows, args.row, args.tokens)
  elif args.document is not None:
    show_document(reader.open_corpus(args.corpus[0], args.split, verify=False), args.document,
                  args.tokens)
  else:
    show_counts(args.corpus[0])
    show_lengths(reader.open_corpus(args.corpus[0], args.split, verify=False), args.png)


def _parse(argv):
  parser = run.Parser(
    prog='python -m gptjax.data.inspect', description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
  add = parser.add_argument
  add('corpus', type=paths.flag, nargs='*', help='folder of the corpus')
  add('--split', default='train', help='train (default) or validation')
  add('--png', type=paths.flag, help='also draw the lengths of the documents into this file')
  add('--document', type=integer(0, 2**40), help='show this document, counted from 0')
  add('--step', type=integer(0), help='show the batch of this update, counted from 0')
  add('--workdir', type=paths.flag,
      help='of a run: its config.json gives corpus, seed, batch_size and seq_len')
  add('--batch_size', type=integer(1), help='sequences a batch')
  add('--seq_len', type=integer(1), help='tokens a sequence')
  add('--seed', type=integer(0, SEED), help='of the order (config.train.seed)')
  add('--cross_documents', choices=('true', 'false'),
      help='whether a sequence may be of several documents')
  add('--shift_windows', choices=('true', 'false'), help='whether windows begin elsewhere in each epoch')
  add('--row', type=integer(0), help='show this row of the batch alone, and all of it')
  add('--tokens', type=integer(1), default=64, help='tokens shown of a document or a row (default 64)')
  args = parser.parse_args(argv)
  for name in ('cross_documents', 'shift_windows'):
    setattr(args, name, {None: None, 'true': True, 'false': False}[getattr(args, name)])
  return args


def _take_from_workdir(args):
  """Fills in what the command line leaves open from the workdir's config.json."""
  path = Path(args.workdir) / 'config.json'
  try:
    stored, args.digest = run_config.read(path)
  except FileNotFoundError:
    raise InputError(f'{path} does not exist: {args.workdir} is not the workdir of a run') from None
  folders, args.weights = mixtures.folders_and_weights(
    {name: stored[f'data.{name}'] for name in ('corpus', 'mixture')})
  found = {name: stored[f'data.{name}'] for name in ('seq_len', 'cross_documents', 'shift_windows')}
  found |= {name: stored[f'train.{name}'] for name in ('seed', 'batch_size')}
  args.rewinds = rewind_log.read(args.workdir)
  args.corpus = args.corpus or folders
  if len(args.corpus) != len(folders):
    read = plural(len(folders), 'corpus', 'corpora')
    raise InputError(f'the run in {args.workdir} read {read}, not {len(args.corpus)}: name '
                     f'those, in the order of its config: {" ".join(folders)}')
  for name, value in found.items():
    if getattr(args, name) is None:
      setattr(args, name, value)


def show_counts(folder):
  """Prints what the manifest says, after every file has been hashed and compared with it."""
  manifest = corpus_manifest.read_manifest(folder)
  splits = [reader.open_corpus(folder, split, verify=True) for split in manifest['splits']]
  made = manifest['tokenizer']
  _load_tokenizer(folder, made)
  n_files = sum(len(split.shards) + 1 for split in splits)
  print(f'corpus      {folder}')
  print(f'digest      {manifest["content"]}')
  print(f'files       {n_files} of {n_files} are as they were written, all ids below '
        f'{made["n_vocab"]:,}')
  print(f'tokenizer   {made["name"]}, {made["n_vocab"]:,} entries, end of text '
        f'{made["end_of_text"]}, digest {made["digest"][:12]}')
  print(f'sources     {printable(redacted(" ".join(manifest.get("sources", []))))}')
  print(f'\n{"split":<12}{"tokens":>16}{"documents":>14}{"bytes":>18}{"bytes/token":>13}'
        f'{"shards":>8}')
  for split in splits:
    print(f'{split.split:<12}{split.n_tokens:>16,}{split.n_documents:>14,}{split.n_bytes:>18,}'
          f'{split.n_bytes / split.n_tokens:>13.3f}{len(split.shards):>8}')


def show_lengths(corpus, png):
  """Prints a histogram of document lengths; draws it into the file `png` too, unless None."""
  lengths = document_lengths(corpus)
  edges = _edges(int(lengths.min()), int(lengths.max()))
  counts = np.histogram(lengths, edges)[0]
  print(f'\ndocuments of {corpus.split} by length in tokens, end of text included\n'
        f'shortest {lengths.min():,}, median {np.median(lengths):,.0f}, mean '
        f'{lengths.mean():,.1f}, longest {lengths.max():,}')
  for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
    span = f'{low:,} to {high - 1:,}' if high - 1 > low else f'{low:,}'
    bar = '#' * int(np.ceil(BAR * count / counts.max()))
    print(f'{span:>24}{count:>14,}  {bar}'.rstrip())
  if png:
    _draw(png, counts, edges, f'{corpus.folder}, {corpus.split}: {plural(corpus.n_documents, "document")}')
    print(f'\ndrawn in {png}')


def document_lengths(corpus):
  """int64[n_documents]: tokens of each document, its end-of-text token included."""
  return np.diff(corpus.document_starts, append=corpus.n_tokens)


def _edges(shortest, longest):
  """Powers of two from at most `shortest` to beyond `longest`."""
  return 2 ** np.arange(max(shortest, 1).bit_length() - 1, longest.bit_length() + 1)


def _draw(path, counts, edges, title):
  figure, axes = figures.figure(1, 1, (8, 4.5))
  axes.stairs(counts, edges, fill=True)
  axes.set_xscale('log', base=2)
  axes.set(xlabel='tokens a document, end of text included', ylabel='documents',
           title=figures.literal(title))
  try:
    figure.savefig(path, format='png')
  except OSError as error:
    raise InputError(f'cannot write {path}: {error.strerror}') from None


def show_document(corpus, number, n_tokens):
  """Prints the first tokens and the text of a document.

  Args:
    corpus: the Corpus.
    number: which document, from 0.
    n_tokens: how many of its tokens to show.
  """
  if not 0 <= number < corpus.n_documents:
    raise InputError(f'there is no document {number}: split {corpus.split!r} of {corpus.folder} '
                     f'has {corpus.n_documents}, counted from 0')
  start = int(corpus.document_starts[number])
  length = int(document_lengths(corpus)[number])
  if not (start >= 0 and 0 <= length <= corpus.n_tokens - start):
    raise InputError(f'the positions of documents in {corpus.folder} are damaged: python -m '
                     f'gptjax.data.inspect {corpus.folder} names the file')
  tokens = corpus.tokens(start, start + min(length, n_tokens))
  decode = _decoder(corpus)
  print(f'document {number} of {corpus.split}: tokens {start:,} to {start + length - 1:,} of the '
        f'split, {length:,} in all; the first {len(tokens):,}:')
  print(' '.join(map(str, tokens)))
  print('\n' + printable(decode(tokens), '\n'))


def show_batch(mixture, step, rewinds, batch_size, seq_len, seed, cross_documents, shift, row, n_tokens):
  """Prints the first tokens and the text of each row of a batch, as training read them.

  Args:
    mixture: mixtures.Mixture.
    step: update that read the batch, counted from 0.
    rewinds: of the run, see gptjax.pretrain.rewind; [] if there were none.
    batch_size, seq_len, seed, cross_documents, shift: as for `corpus.batch`.
    row: the one row to show, whole; None: all rows.
    n_tokens: tokens to show of each, if all rows are shown.
  """
  _require(batch_size=batch_size, seq_len=seq_len, seed=seed, cross_documents=cross_documents,
           shift_windows=shift)
  if step < 0 or min(batch_size, seq_len) < 1 or not (row is None or 0 <= row < batch_size):
    raise InputError(f'there is no step {step}, row {row} in batches of {batch_size} x {seq_len}: '
                     'steps and rows are counted from 0')
  rows = slice(None) if row is None else slice(row, row + 1)
  # Numbers of all rows, and inputs and targets of those that are shown.
  needed = 8 * batch_size + 16 * seq_len * (batch_size if row is None else 1)
  if needed > cpu.memory():
    raise InputError(f'a batch of {batch_size:,} x {seq_len:,} tokens needs {needed:,} bytes, and this '
                     f'machine has {cpu.memory():,}: show one --row, or a smaller batch')
  number = rewind_log.batch_number(rewinds, step)
  where = mixture.train, mixture.weights, seed, number, batch_size, seq_len, cross_documents, rows, shift
  found = reader.batch_windows(*where)
  batch = reader.batch(*where)
  decode, n_shown = _decoder(mixture.train[0]), n_tokens if row is None else seq_len
  print(f'batch {number} of train (its loss is logged as step {step + 1}), seed {seed}, '
        f'{plural(batch_size, "sequence")} of {plural(seq_len, "token")}')
  for i, (c, window, start, n) in enumerate(zip(*map(np.ndarray.tolist, found), strict=True)):
    corpus = mixture.train[c]
    source = f'corpus {corpus.folder}, ' if len(mixture.train) > 1 else ''
    ends = [start, (start + n - 1) % corpus.n_tokens]  # the first token follows the last one
    first, last = np.searchsorted(corpus.document_starts, ends, 'right') - 1
    print(f'\nrow {i if row is None else row}: {source}window {window:,}, tokens {start:,} to '
          f'{(start + n) % corpus.n_tokens:,}, document {first:,}'
          + (f' to {last:,}' if last != first else '')
          + (f', then {seq_len - n:,} of padding' if n < seq_len else ''))
    inputs = batch['inputs'][i, :min(n, n_shown)]
    print(' '.join(map(str, inputs)))
    text = decode(inputs)
    print(repr(text) if row is None else '\n' + printable(text, '\n'))


def _require(**given):
  absent = [f'--{name}' for name, value in given.items() if value is None]
  if absent:
    raise InputError(f'a batch needs {", ".join(absent)} too, or --workdir of the run that read it')


def _decoder(corpus):
  return _load_tokenizer(corpus.folder, corpus.tokenizer).decode


def _load_tokenizer(folder, made):
  """The corpus's own tokenizer; ValueError if it is not the one that the manifest names."""
  from gptjax.data.tokenizers import loading
  path = Path(folder) / 'tokenizer'
  tokenizer = loading.load(str(path))
  if tokenizer.digest != made['digest']:
    raise InputError(f'{path} is not the tokenizer of the corpus: its digest is '
                     f'{tokenizer.digest[:12]}, the manifest says {made["digest"][:12]}; copy it '
                     'again, or prepare the corpus again')
  return tokenizer


if __name__ == '__main__':
  run.run(main, 'inspect')
