"""Contexts for samples: the beginnings of random documents of a corpus (GPT-2, Tables 7 to 12).

The paper takes 768 tokens of a text of WebText's test set as context, and lets the model write 256 more.
Which part of a text it took is not stated; here it is the beginning of a document that goes on for at least
as long as the completion, so that there is a real continuation to compare with.
"""

from typing import NamedTuple

import numpy as np

from gptjax.data.corpus import reader
from gptjax.errors import InputError
from gptjax.text.words import plural


class Lengths(NamedTuple):
  """Numbers of tokens of a context and of its completion."""
  context: int
  completion: int


PAPER = Lengths(768, 256)           # Tables 7 to 11
PAPER_SEVERAL = Lengths(384, 128)   # Table 12


class Context(NamedTuple):
  """A context: its document's title, int32 ids of the context and of what follows it in the document."""
  title: str
  ids: np.ndarray
  continuation: np.ndarray


def fitted(lengths, n_ctx):
  """Return the lengths, shortened in proportion if a context of n_ctx tokens is too short for them."""
  whole = sum(lengths)
  if n_ctx >= whole:
    return lengths
  if n_ctx < 2:
    raise InputError(f'a context of {plural(n_ctx, "token")} has no room for a context and its completion')
  context = min(max(1, n_ctx * lengths.context // whole), n_ctx - 1)
  return Lengths(context, n_ctx - context)


def read(folder, split, number, lengths, seed):
  """Return (Corpus, [Context]): of random documents, of which a larger number only adds some.

  Args:
    folder: of the corpus, here or in a bucket.
    split: 'train' or 'validation'.
    number: of contexts.
    lengths: Lengths.
    seed: of the choice.

  Raises:
    InputError: no such corpus or split, or too few documents that are long enough.
  """
  corpus = reader.open_corpus(folder, split, verify=False)
  end = corpus.tokenizer['end_of_text']
  lengths_of = np.diff(corpus.document_starts, append=corpus.n_tokens) - (end is not None)
  enough = np.flatnonzero(lengths_of >= sum(lengths))
  found = {}  # by their tokens: documents that begin alike give one context
  for document in np.random.default_rng(seed).permutation(enough) if len(enough) >= number else ():
    context = _context(corpus, int(document), lengths, end)
    found.setdefault(context.ids.tobytes(), context)
    if len(found) == number:
      return corpus, list(found.values())
  raise InputError(
    f'{folder}: {len(enough):,} of {plural(corpus.n_documents, "document")} of the split {split} have '
    f'{sum(lengths):,} tokens or more (the longest has {lengths_of.max():,}), and {number:,} that begin '
    'differently are needed: set --number, or --context_tokens and --tokens, lower')


def _context(corpus, document, lengths, end):
  start = int(corpus.document_starts[document])
  ids = corpus.tokens(start, min(start + sum(lengths) + (end is not None), corpus.n_tokens))
  ids = ids[ids != end] if end is not None else ids
  title = f'document {document:,} of the split {corpus.split} of {corpus.folder}'
  return Context(title, ids[:lengths.context], ids[lengths.context:sum(lengths)])
