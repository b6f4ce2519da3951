"""Documents from a corpus that `gptjax.data.prepare` wrote, decoded from its tokens."""

import functools
import hashlib
import itertools
from pathlib import Path

import numpy as np

from gptjax.data.corpus import corpus_manifest, reader, remote_shards
from gptjax.data.sources import decoded, files
from gptjax.data.sources.unit import DEFAULT_SPLIT, Unit
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.storage.files import access, paths

OPEN = 16  # corpora that a process keeps open


def parse_where(where):
  """Return (folder, split) of `FOLDER[:SPLIT]`."""
  folder, _, split = where.rpartition(':')
  if not folder or not split or '/' in split or access.is_folder(Path(where)):
    return where, DEFAULT_SPLIT
  return folder, split


def units(where):
  """Return the unit of `FOLDER[:SPLIT]`, whose content is verified when it is read.

  Raises:
    InputError: it is not a corpus, its index is damaged, or a file is missing or has another size.
  """
  folder, split = parse_where(where)
  corpus, _ = _opened(folder, split)
  return [Unit('corpus', folder, corpus.n_tokens, corpus.digest, split)]


def _opened(folder, split):
  """Return (Corpus, its tokenizer): each process opens a corpus, and verifies what it reads of it, once."""
  return _with_manifest(folder, split, corpus_manifest.read_manifest(paths.parsed(folder))['digest'])


@functools.lru_cache(maxsize=OPEN)
def _with_manifest(folder, split, digest):
  del digest  # of its manifest: another one is another corpus
  corpus = reader.open_corpus(folder, split, verify=True, lazily=True)
  return corpus, loading.load(str(paths.parsed(folder) / 'tokenizer'))


def _of_unit(unit):
  corpus, tokenizer = _opened(unit.path, unit.split)
  if (corpus.digest, corpus.n_tokens) != (unit.field, unit.size):
    raise InputError(f'corpus {unit.path} was replaced by another one: run the same command again')
  return corpus, tokenizer


def positions(unit, n_tokens):
  """Return the documents, from the second on, that begin after about `n_tokens` tokens more each."""
  starts = _of_unit(unit)[0].document_starts
  found = np.searchsorted(starts, np.arange(n_tokens, unit.size - n_tokens // 2, n_tokens))
  return sorted({int(number) for number in found} - {0, len(starts)})


def pieces(unit, first=0, end=None):
  """Yield the pieces of the documents [first, end) of a corpus, in order; blank ones are skipped."""
  corpus, tokenizer = _of_unit(unit)
  if not first and end is None:  # a part needs few shards, which are copied when they are read
    remote_shards.fetch_ahead([], [corpus], ())
  starts = [*corpus.document_starts[first:None if end is None else end + 1].tolist(), corpus.n_tokens]
  mark = corpus.tokenizer.get('begin_of_text')
  for number, (start, stop) in enumerate(itertools.pairwise(starts[:None if end is None else -1]), first):
    start += mark is not None and stop > start and int(corpus.tokens(start, start + 1)[0]) == mark
    ended = stop > start and int(corpus.tokens(stop - 1, stop)[0]) == tokenizer.end_of_text
    yield from _document(corpus, tokenizer, start, stop - ended, f'{unit.path}:{unit.split}:{number}')


def _document(corpus, tokenizer, start, stop, location):
  if stop - start <= decoded.DECODED_TOKENS:
    text = tokenizer.decode(corpus.tokens(start, stop))
    yield from files.document_pieces(text, location, {}) if text.strip() else ()
    return
  digest, length, blank = hashlib.blake2b(digest_size=16), 0, True
  for text in decoded.texts(corpus.tokens, tokenizer, start, stop):
    digest.update(text.encode())
    length += len(text)
    blank = blank and (not text or text.isspace())
  if not blank:
    texts = decoded.texts(corpus.tokens, tokenizer, start, stop)
    yield from files.cut_into_pieces(texts, location, digest.digest(), length)
