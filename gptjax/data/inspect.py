"""Inspects a corpus: counts, damage, document lengths, and the text of a document or a batch.

  python -m gptjax.data.inspect DIR                       counts, checked hashes, lengths
  python -m gptjax.data.inspect DIR --document=3          document 3
  python -m gptjax.data.inspect --workdir=W --step=4711   the batch of update 4711 of a run
  python -m gptjax.data.inspect DIR DIR --workdir=W --step=4711    the same if its corpora have moved

Updates are counted from 0; metrics.jsonl has the loss of update s as step s + 1.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.inspect import parser
  startup.begin('inspect', 'stopped', stdout_is_result=True)
  early.handle_help(parser, 'inspect')

import io

import numpy as np

from gptjax.command import figures, run
from gptjax.command.parsers.inspect import parser
from gptjax.data.corpus import corpus_manifest, reader, remote_shards
from gptjax.data.corpus import mixture as mixtures
from gptjax.errors import InputError
from gptjax.kernels import cpu
from gptjax.storage import rewind_log
from gptjax.storage.files import access, paths, run_config
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted
from gptjax.text.words import plural

BAR = 40  # characters of the longest bar of the histogram


def main(argv):
  """Run the command; ValueError with a one-line message if it fails."""
  args = _parse(argv)
  args.weights, args.digest, args.rewinds = [1.0], None, []
  if args.workdir:
    _set_from_workdir(args)
  if not args.corpus:
    raise InputError('no corpus: give its folder, or --workdir of a run')
  if len(args.corpus) > 1 and (args.step is None or not args.workdir):
    raise InputError(f'{" ".join(args.corpus)} are several corpora: give one, or --step and --workdir of the '
                     'run that read them')
  if args.step is not None and args.split != 'train':
    raise InputError('--step shows batches of training, which are of the split train: remove --split')
  if args.step is not None:
    mixture = mixtures.open_mixture(args.corpus, args.weights, verify=False)
    if args.digest not in (None, mixture.digest):
      raise InputError(f'{" ".join(args.corpus)} is not what the run in {args.workdir} read '
                       f'(digest {mixture.digest[:12]}, not {args.digest[:12]}): give its corpora')
    show_batch(mixture, args.step, args.rewinds, args.batch_size, args.seq_len, args.seed,
               args.cross_documents, args.shift_windows, args.packing, args.row, args.tokens)
  elif args.document is not None:
    show_document(reader.open_corpus(args.corpus[0], args.split, verify=False), args.document,
                  args.tokens)
  else:
    show_counts(args.corpus[0])
    show_lengths(reader.open_corpus(args.corpus[0], args.split, verify=False), args.png)


def _parse(argv):
  args = parser().parse_args(argv)
  for name in ('cross_documents', 'shift_windows', 'packing'):
    setattr(args, name, {None: None, 'true': True, 'false': False}[getattr(args, name)])
  return args


def _set_from_workdir(args):
  """Set the arguments that the command line does not set from the workdir's config.json."""
  path = paths.location(args.workdir) / 'config.json'
  try:
    stored, args.digest = run_config.read(path)
  except FileNotFoundError:
    raise InputError(f'{path} does not exist: {args.workdir} is not the workdir of a run') from None
  folders, args.weights = mixtures.folders_and_weights(
    {name: stored[f'data.{name}'] for name in ('corpus', 'mixture')})
  fields = {name: stored[f'data.{name}']
            for name in ('seq_len', 'cross_documents', 'shift_windows', 'packing')}
  fields |= {name: stored[f'train.{name}'] for name in ('seed', 'batch_size')}
  args.rewinds = rewind_log.read(args.workdir)
  args.corpus = args.corpus or folders
  if len(args.corpus) != len(folders):
    read = plural(len(folders), 'corpus', 'corpora')
    raise InputError(f'the run in {args.workdir} read {read}, not {len(args.corpus)}: give '
                     f'them in the order of its config: {" ".join(folders)}')
  for name, value in fields.items():
    if getattr(args, name) is None:
      setattr(args, name, value)


def show_counts(folder):
  """Print the counts in the manifest, after comparing the hash of every file with it."""
  manifest = corpus_manifest.read_manifest(folder)
  splits = [reader.open_corpus(folder, split, verify=True) for split in manifest['splits']]
  remote_shards.verify(splits)
  facts = manifest['tokenizer']
  _load_tokenizer(folder, facts)
  n_files = sum(len(split.shards) + 1 for split in splits)
  print(f'corpus      {folder}')
  print(f'digest      {manifest["content"]}')
  print(f'files       {n_files} of {n_files} are unchanged, all ids below '
        f'{facts["n_vocab"]:,}')
  print(f'tokenizer   {facts["name"]}, {facts["n_vocab"]:,} entries, end of text '
        f'{facts["end_of_text"]}, digest {facts["digest"][:12]}')
  print(f'sources     {printable(redacted(" ".join(manifest.get("sources", []))))}')
  print(f'\n{"split":<12}{"tokens":>16}{"documents":>14}{"bytes":>18}{"bytes/token":>13}'
        f'{"shards":>8}')
  for split in splits:
    print(f'{split.split:<12}{split.n_tokens:>16,}{split.n_documents:>14,}{split.n_bytes:>18,}'
          f'{split.n_bytes / split.n_tokens:>13.3f}{len(split.shards):>8}')


def show_lengths(corpus, png):
  """Print a histogram of document lengths; also plot it to the file `png`, unless that is None."""
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
    print(f'\nplotted in {png}')


def document_lengths(corpus):
  """Return int64[n_documents]: tokens of each document, including its end-of-text token."""
  return np.diff(corpus.document_starts, append=corpus.n_tokens)


def _edges(shortest, longest):
  """Return powers of two, the first at most `shortest`, the last above `longest`."""
  return 2 ** np.arange(max(shortest, 1).bit_length() - 1, longest.bit_length() + 1)


def _draw(path, counts, edges, title):
  figure, axes = figures.figure(1, 1, (8, 4.5))
  axes.stairs(counts, edges, fill=True)
  axes.set_xscale('log', base=2)
  axes.set(xlabel='tokens per document, end of text included', ylabel='documents',
           title=figures.literal(title))
  try:
    png = io.BytesIO()
    figure.savefig(png, format='png')
    access.write(paths.location(path), png.getvalue())
  except OSError as error:
    raise InputError(f'cannot write {path}: {error.strerror}') from None


def show_document(corpus, number, n_tokens):
  """Print the first tokens and the text of a document.

  Args:
    corpus: the Corpus.
    number: index of the document, from 0.
    n_tokens: how many of its tokens to show.
  """
  if not 0 <= number < corpus.n_documents:
    raise InputError(f'document {number} does not exist: split {corpus.split!r} of {corpus.folder} '
                     f'has {corpus.n_documents}, counted from 0')
  start = int(corpus.document_starts[number])
  length = int(document_lengths(corpus)[number])
  if not (start >= 0 and 0 <= length <= corpus.n_tokens - start):
    raise InputError(f'the document positions of {corpus.folder} are damaged: run python -m '
                     f'gptjax.data.inspect {corpus.folder} to find the file')
  tokens = corpus.tokens(start, start + min(length, n_tokens))
  decode = _decoder(corpus)
  print(f'document {number} of {corpus.split}: tokens {start:,} to {start + length - 1:,} of the '
        f'split, {length:,} in all; the first {len(tokens):,}:')
  print(' '.join(map(str, tokens)))
  print('\n' + printable(decode(tokens), '\n'))


def show_batch(mixture, step, rewinds, batch_size, seq_len, seed, cross_documents, shift, packing, row,
               n_tokens):
  """Print the first tokens and the text of each row of a batch of training.

  Args:
    mixture: mixtures.Mixture.
    step: update that read the batch, counted from 0.
    rewinds: rewinds of the run, see gptjax.pretrain.rewind; [] if there were none.
    batch_size, seq_len, seed, cross_documents, shift: as for `reader.batch`.
    packing: whether to show which document of its row each token is in; None: no.
    row: the row to show completely; None: all rows.
    n_tokens: tokens to show of each row if all rows are shown.
  """
  _require(batch_size=batch_size, seq_len=seq_len, seed=seed, cross_documents=cross_documents,
           shift_windows=shift)
  if step < 0 or min(batch_size, seq_len) < 1 or not (row is None or 0 <= row < batch_size):
    raise InputError(f'step {step}, row {row} does not exist in batches of {batch_size} x {seq_len}: '
                     'steps and rows are counted from 0')
  rows = slice(None) if row is None else slice(row, row + 1)
  # Sample numbers of all rows, and inputs and targets of the rows to show.
  needed = 8 * batch_size + 16 * seq_len * (batch_size if row is None else 1)
  if needed > cpu.memory():
    raise InputError(f'a batch of {batch_size:,} x {seq_len:,} tokens needs {needed:,} bytes, and this '
                     f'machine has {cpu.memory():,}: show one --row, or a smaller batch')
  number = rewind_log.batch_number(rewinds, step)
  arguments = mixture.train, mixture.weights, seed, number, batch_size, seq_len, cross_documents, rows, shift
  windows = reader.batch_windows(*arguments)
  batch = reader.batch(*arguments, packing=bool(packing))
  decode, n_shown = _decoder(mixture.train[0]), n_tokens if row is None else seq_len
  print(f'batch {number} of train (its loss is logged as step {step + 1}), seed {seed}, '
        f'{plural(batch_size, "sequence")} of {plural(seq_len, "token")}')
  for i, (c, window, start, n) in enumerate(zip(*map(np.ndarray.tolist, windows), strict=True)):
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
    if packing:
      print('segments', *batch['segments'][i, :len(inputs)])
    text = decode(inputs)
    print(repr(text) if row is None else '\n' + printable(text, '\n'))


def _require(**arguments):
  missing = [f'--{name}' for name, value in arguments.items() if value is None]
  if missing:
    raise InputError(f'a batch also needs {", ".join(missing)}, or --workdir of the run that read it')


def _decoder(corpus):
  return _load_tokenizer(corpus.folder, corpus.tokenizer).decode


def _load_tokenizer(folder, facts):
  """Return the tokenizer in the corpus folder; ValueError if its digest differs from the manifest."""
  from gptjax.data.tokenizers import loading
  path = paths.parsed(folder) / 'tokenizer'
  tokenizer = loading.load(str(path))
  if tokenizer.digest != facts['digest']:
    raise InputError(f'{path} is not the tokenizer of the corpus: its digest is '
                     f'{tokenizer.digest[:12]}, not {facts["digest"][:12]} as in the manifest; copy it '
                     'again, or prepare the corpus again')
  return tokenizer


if __name__ == '__main__':
  run.run(main, 'inspect')
