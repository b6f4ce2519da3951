"""Packing: the documents that share a row of a batch, kept apart (`config.data.packing`).

A packed row has the tokens of a window that crosses documents. Its documents are numbered from 1, as its
segments, and a position attends to its own segment only. A row that begins within a document has the rest of
it as its first segment.

The mark between two documents, the end-of-text token of the first or the begin-of-text token of the second,
is the last target of the first document and the first input of the second one. So a document is read as
evaluation and generation read a text: after this token and nothing else. Where there is no mark, no input of
its own segment precedes the first token of the second document, and the loss ignores that target.

    tokens    A B C . D E . F        . the end-of-text token
    inputs    A B C . D E .
    targets   B C . D E . F
    segments  1 1 1 2 2 2 3
"""

import numpy as np

NO_TOKEN = -1  # instead of the id of a mark that a corpus does not have


def array_names(data):
  """Return the names of the arrays of a batch, int32[batch_size, seq_len] each, for `config.data`."""
  return ['inputs', 'targets', *['segments'] * data.packing, *['positions'] * data.restart_positions]


def mark_documents(corpus, rows, starts, lengths, inputs, targets, begins):
  """Set `begins` to True at the inputs by which documents begin; returns the targets to ignore.

  Args:
    corpus: reader.Corpus.
    rows: int64[m], rows of the arrays below that hold windows of the corpus.
    starts, lengths: int64[m], first token and number of targets of these windows, as of `window_bounds`.
    inputs, targets: int32[n, T], with the tokens of the windows.
    begins: bool[n, T].

  Returns:
    (rows, columns): indices of `targets`.
  """
  row, offset = _documents_within(corpus, starts, lengths)
  row, last = rows[row], offset - 1  # the last token of a document, an input, and the target after it
  end, begin = (NO_TOKEN if (token := corpus.tokenizer.get(name)) is None else token
                for name in ('end_of_text', 'begin_of_text'))
  before = inputs[row, last] == end
  after = targets[row, last] == begin
  first = np.where(before & ~after, last, offset)
  inside = first < inputs.shape[1]
  begins[row[inside], first[inside]] = True
  unmarked = ~(before | after)
  return row[unmarked], last[unmarked]


def _documents_within(corpus, starts, lengths):
  """Return (window, offset from its start) of each document that begins after its start: int64[k] each.

  The offset is at most the number of targets: the document that begins with the last target counts.
  """
  windows, offsets = [], []
  for shift in (0, corpus.n_tokens):  # a window may continue with the first token of the corpus
    low, high = (np.searchsorted(corpus.document_starts, at - shift, side='right')
                 for at in (starts, starts + lengths))
    counts = high - low
    window = np.repeat(np.arange(len(starts)), counts)
    document = np.arange(len(window)) + np.repeat(low - np.cumsum(counts) + counts, counts)
    windows.append(window)
    offsets.append(corpus.document_starts[document] + shift - starts[window])
  return np.concatenate(windows), np.concatenate(offsets)


def segment_arrays(begins, restart_positions):
  """Return the arrays of a packed batch besides inputs and targets, int32[n, T] each.

  Args:
    begins: bool[n, T], the inputs by which documents begin; a row begins one in any case.
    restart_positions: whether to add the positions.

  Returns:
    {'segments': numbers of the documents of a row, from 1; 'positions': number of inputs of the document
    before each}.
  """
  n, t = begins.shape
  first = np.union1d(np.flatnonzero(begins), np.arange(n) * t)  # the first input of each segment of all rows
  lengths = np.diff(first, append=n * t)
  in_row = np.arange(len(first)) - np.searchsorted(first, first // t * t)
  whole = lambda of_segments: np.repeat(of_segments.astype(np.int32), lengths).reshape(n, t)
  arrays = {'segments': whole(1 + in_row)}
  if restart_positions:
    arrays['positions'] = np.arange(n * t, dtype=np.int32).reshape(n, t) - whole(first)
  return arrays
