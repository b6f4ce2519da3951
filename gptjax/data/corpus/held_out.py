"""Chooses the text that a corpus holds out for validation: nothing, or at least one window, but never all."""

from gptjax.data import encode

WHOLE_DOCUMENTS, DOCUMENT_ENDS, NOTHING = 'documents by their hash', 'the end of each document', 'nothing'


def choose_rule(pieces, tokenizer, fraction, seq_len, names=()):
  """Return the first rule that gives both splits at least one window of seq_len + 1 tokens.

  The rules, in order: hold out WHOLE_DOCUMENTS by their hash, DOCUMENT_ENDS, or NOTHING. Only the beginning
  of a large corpus is read.

  Args:
    pieces: iterator of files.Piece of all documents that are not skipped.
    tokenizer: tokenizer of the corpus.
    fraction: share of validation in [0, 1).
    seq_len: tokens of a window.
    names: special tokens that a text may contain.

  Returns:
    {'fraction': share of the documents to hold out, 'tail': share of each document}, at most one of them not
    0. If both are 0, also 'too_little': the largest number of tokens that a rule would have held out.
  """
  if not fraction:
    return {'fraction': 0, 'tail': 0}
  enough, counts = seq_len + 1, {WHOLE_DOCUMENTS: [0, 0], DOCUMENT_ENDS: [0, 0]}
  for piece in pieces:
    held = encode.in_validation(piece.digest, fraction)
    for rule, tail in ((WHOLE_DOCUMENTS, 0), (DOCUMENT_ENDS, fraction)):
      for split, text, first, last in encode.split_piece(piece.text, held, piece.start, piece.length, tail):
        if counts[rule][split] < enough:
          counts[rule][split] += len(encode.encode_piece(tokenizer, names, text, first, last)[0])
    if min(counts[WHOLE_DOCUMENTS]) >= enough:
      return {'fraction': fraction, 'tail': 0}
  if min(counts[DOCUMENT_ENDS]) >= enough:
    return {'fraction': 0, 'tail': fraction}
  return {'fraction': 0, 'tail': 0, 'too_little': max(held for _, held in counts.values())}


def describe(state, fraction, seq_len):
  """Describe the held-out text, for the manifest.

  Args:
    state: contains the result of `choose_rule`, or only `tail`, as in versions up to 0.1.0.
    fraction, seq_len: as for `choose_rule`.
  """
  if state['tail']:
    return DOCUMENT_ENDS
  if state.get('fraction', fraction):
    return WHOLE_DOCUMENTS
  if not fraction:
    return NOTHING
  return (f'{NOTHING}: too little text for validation_fraction = {fraction:g}, one of the splits would have '
          f'less than a window of {seq_len:,} tokens (held out: at most {state["too_little"]:,})')
