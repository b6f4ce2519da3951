"""What a corpus holds out for validation: nothing, or at least one window, and never all of it."""

from gptjax.data import encode

WHOLE_DOCUMENTS, DOCUMENT_ENDS, NOTHING = 'documents by their hash', 'the end of each document', 'nothing'


def choose_rule(found, tokenizer, fraction, seq_len, names=()):
  """The first rule by which both splits have at least one window, seq_len + 1 tokens.

  WHOLE documents belong to validation by their hash, or else the ENDS of all documents do, or else NOTHING
  does. Of a large corpus only the beginning is read.

  Args:
    found: iterator of files.Piece, of all documents that are kept.
    tokenizer: of the corpus.
    fraction: share of validation in [0, 1).
    seq_len: tokens of a window.
    names: special tokens that a text may contain.

  Returns:
    {'fraction': share of the documents to hold out, 'tail': share of each document}, of which at most one is
    not 0; and 'too_little' where both are: the tokens that a rule would have held out, at most.
  """
  if not fraction:
    return {'fraction': 0, 'tail': 0}
  enough, counts = seq_len + 1, {WHOLE_DOCUMENTS: [0, 0], DOCUMENT_ENDS: [0, 0]}
  for piece in found:
    held = encode.in_validation(piece.digest, fraction)
    for rule, tail in ((WHOLE_DOCUMENTS, 0), (DOCUMENT_ENDS, fraction)):
      for which, text, first, last in encode.split_piece(piece.text, held, piece.start, piece.length, tail):
        if counts[rule][which] < enough:
          counts[rule][which] += len(encode.encode_piece(tokenizer, names, text, first, last)[0])
    if min(counts[WHOLE_DOCUMENTS]) >= enough:
      return {'fraction': fraction, 'tail': 0}
  if min(counts[DOCUMENT_ENDS]) >= enough:
    return {'fraction': 0, 'tail': fraction}
  return {'fraction': 0, 'tail': 0, 'too_little': max(held for _, held in counts.values())}


def describe(state, fraction, seq_len):
  """What is held out, for the manifest.

  Args:
    state: with what `choose` gives, or as versions up to 0.1.0 wrote it, with `tail` alone.
    fraction, seq_len: as for `choose`.
  """
  if state['tail']:
    return DOCUMENT_ENDS
  if state.get('fraction', fraction):
    return WHOLE_DOCUMENTS
  if not fraction:
    return NOTHING
  return (f'{NOTHING}: too little text for validation_fraction = {fraction:g}, one of the splits would have '
          f'less than a window of {seq_len:,} tokens (held out: at most {state["too_little"]:,})')
