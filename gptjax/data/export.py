"""Writes the tokens of a corpus in the layout of another project.

    python -m gptjax.data.export --from=corpora/books --to=llmc --out=books-llmc

    llmc      NAME_train_000001.bin, ..., NAME_val_000000.bin, ...: shards of llm.c and modded-nanogpt
    nanogpt   train.bin, val.bin: for nanoGPT

llm.c expects an end-of-text token before each document, so one is written before the first, unless the
split begins within a document, or its documents have no end-of-text token. Both layouts have the tokens in
the order of the corpus; `gptjax.data.adopt` makes of them a corpus of the same content.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.export_tokens import parser
  startup.begin('export-tokens', 'stopped; run the same command again')
  early.handle_help(parser, 'export-tokens')

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gptjax.command import run
from gptjax.command.parsers.export_tokens import SHARD_SIZES, SHARD_TOKENS, parser
from gptjax.data import progress as progress_bar
from gptjax.data.corpus import corpus_manifest, reader, remote_shards, tree
from gptjax.data.foreign import llmc, nanogpt
from gptjax.errors import InputError
from gptjax.storage import ownership
from gptjax.storage.files import access, paths, spool
from gptjax.storage.files.paths import Url
from gptjax.text.words import plural

CHUNK = 1 << 20  # tokens in memory
SHORT_NAMES = {'train': 'train', 'validation': 'val'}  # of the splits, in names of files
SPLIT_PARTS = '_train', '_val'  # of the names by which a reader of llmc knows the split


class Target(NamedTuple):
  """How a project wants its files.

  name: function of (split, number) -> the name of a file, of (split) `'train'` or `'val'`.
  header: function of (dtype, number of tokens) -> bytes.
  dtypes: of ids, the smallest first.
  end_first: whether an end-of-text token precedes the first document.
  """
  name: Callable
  header: Callable
  dtypes: tuple
  end_first: bool


def _targets(prefix):
  return {
    'llmc': Target(lambda split, number: f'{prefix}_{split}_{number + (split == "train"):06d}.bin',
                   llmc.header, tuple(kind.dtype for kind in llmc.KINDS), True),
    'nanogpt': Target(lambda split, number: {'train': nanogpt.TRAIN, 'val': nanogpt.VALIDATION}[split],
                      lambda dtype, n_tokens: b'', (nanogpt.DTYPE,), False)}


class Shard(NamedTuple):
  """A file to write: tokens [start, stop) of a split, in which -1 is the end-of-text token before it."""
  name: str
  corpus: reader.Corpus
  start: int
  stop: int


def export(source, to, out, *, shard_tokens=SHARD_TOKENS, name='tokens', progress=True):
  """Write the tokens of a corpus for another project; files that are there are replaced.

  Args:
    source: folder of the corpus, here or in a bucket.
    to: 'llmc' or 'nanogpt'.
    out: folder to write, here or in a bucket.
    shard_tokens: tokens of a shard of llmc.
    name: beginning of the names of its shards.
    progress: show a progress bar on stderr.

  Returns:
    [Shard], the files written.

  Raises:
    InputError: the corpus is damaged, or its ids do not fit; `out` is a folder of the corpus, or holds other
      files of the same kind.
  """
  SHARD_SIZES.require('shard_tokens', shard_tokens)
  if not name or '/' in name:
    raise InputError(f'--name={name} is not the beginning of a file name: write letters, digits, - and _')
  if any(part in name for part in SPLIT_PARTS):
    raise InputError(f'--name={name} has {" or ".join(SPLIT_PARTS)} in it, by which llm.c distinguishes the '
                     'files of the splits: give another name')
  target = _targets(name)[to]
  manifest = corpus_manifest.read_manifest(source)
  n_vocab = manifest['tokenizer']['n_vocab']
  dtypes = [dtype for dtype in target.dtypes if dtype.itemsize >= tree.id_dtype(n_vocab).itemsize]
  if not dtypes:
    raise InputError(f'the tokenizer of {source} has {n_vocab:,} entries, and the ids of {to} are below '
                     '65,536: use --to=llmc, or a corpus with a smaller vocabulary')
  folder = paths.location(out)
  _require_elsewhere(folder, source, manifest)
  shards = _shards(source, manifest, target, shard_tokens if to == 'llmc' else 1 << 62)
  with ownership.own_folder(folder):
    _require_no_others(folder, {shard.name for shard in shards}, to)
    size = sum(shard.stop - shard.start for shard in shards) * dtypes[0].itemsize
    with progress_bar.bytes_bar('writing', progress, total=size) as bar:
      for shard in shards:
        with spool.replacing(folder / shard.name) as file:
          file.write(target.header(dtypes[0], shard.stop - shard.start))
          for ids in _tokens(shard):
            file.write(ids.astype(dtypes[0]).tobytes())
            bar.update(len(ids) * dtypes[0].itemsize)
  return shards


def _shards(source, manifest, target, shard_tokens):
  """Return [Shard] of all splits."""
  shards, corpora = [], [reader.open_corpus(source, split, verify=True) for split in SHORT_NAMES
                         if split in manifest['splits'] and manifest['splits'][split]['tokens']]
  remote_shards.fetch_ahead([], corpora, ())
  for corpus in corpora:
    first = -1 if target.end_first and _lacks_end(manifest, corpus.split) else 0
    for number, start in enumerate(range(first, corpus.n_tokens, shard_tokens)):
      stop = min(start + shard_tokens, corpus.n_tokens)
      shards.append(Shard(target.name(SHORT_NAMES[corpus.split], number), corpus, start, stop))
  if not shards:
    raise InputError(f'{source} has no tokens: prepare it from more documents')
  return shards


def _require_elsewhere(folder, source, manifest):
  """Raise InputError if `folder` has the files of the corpus, which the export could replace."""
  root = paths.location(source)
  resolved = [where if isinstance(where, Url) else where.resolve()
              for where in (folder, root, corpus_manifest.tokens_folder(root, manifest))]
  if resolved[0] in resolved[1:]:
    raise InputError(f'--out={folder} has files of the corpus {source}, which the export could replace: give '
                     'another folder')


def _lacks_end(manifest, split):
  """Whether an end-of-text token has to be written first.

  Not if the documents of a corpus are not ended by one, or if the split begins within a document.
  """
  tokenizer, entry = manifest['tokenizer'], manifest['splits'][split]
  if tokenizer['end_of_text'] is None or 'begin_of_text' in tokenizer or manifest.get('settings', {}).get(
      'no_end_of_text'):
    return False
  # Corpora that were adopted before the field existed: in files of llm.c nothing follows the header then.
  of_llmc = entry['shards'][0].get('offset', 0) == llmc.OFFSET
  return not entry.get('begins_within_document', of_llmc)


def _tokens(shard):
  """Yield the ids of a shard."""
  if shard.start < 0:
    yield np.array([shard.corpus.tokenizer['end_of_text']], np.int32)
  for start in range(max(shard.start, 0), shard.stop, CHUNK):
    yield shard.corpus.tokens(start, min(start + CHUNK, shard.stop))


def _require_no_others(folder, names, to):
  """Raise InputError if a reader would take another file of the folder for one of these."""
  kind = {'llmc': SPLIT_PARTS, 'nanogpt': ('train.bin', 'val.bin')}[to]
  for name in access.names(folder):
    if name.endswith('.bin') and any(part in name for part in kind) and name not in names:
      raise InputError(f'{folder} holds {name}, which is not part of this export: remove it, or give another '
                       '--out')


def main(arguments):
  flags = vars(parser().parse_args(arguments))
  unmarked = corpus_manifest.read_manifest(flags['source']).get('settings', {}).get('no_end_of_text', False)
  for name, shards in itertools.groupby(export(**flags), lambda shard: shard.corpus.split):
    shards = list(shards)
    n_tokens = sum(shard.stop - shard.start for shard in shards)
    print(f'{name:<12}{plural(len(shards), "file")} from {shards[0].name} on, {n_tokens:,} tokens')
    n_documents = shards[0].corpus.n_documents
    if unmarked and n_documents > 1:
      print(f'{"":<12}no token separates the {n_documents:,} documents, so the files do not show where they '
            'begin')


if __name__ == '__main__':
  run.run(main, 'export-tokens')
