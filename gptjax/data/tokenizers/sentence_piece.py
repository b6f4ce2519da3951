"""Tokenizers of the sentencepiece library, and their training."""

import io

import numpy as np

from gptjax.data.tokenizers import native
from gptjax.data.tokenizers.tokenizer_files import default_eos_ids, digest, save_files, saved_files
from gptjax.errors import InputError

SPACE = '\u2581'  # sentencepiece's


def train_sentencepiece(texts, n_vocab):
  """Train a sentencepiece unigram model on the lines of `texts`; the result is deterministic.

  It preserves the text (no normalization, bytes for unseen characters); id 0 is the unknown token, 1 and 2
  are the start and the end of a text.

  Args:
    texts: iterable of str.
    n_vocab: number of entries, including 3 control tokens and 256 bytes.

  Raises:
    ValueError: the texts are too short for n_vocab, or n_vocab is too small for their characters.
  """
  import sentencepiece
  lines = (line for text in texts for line in text.split('\n') if line)
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=lines, model_writer=model, vocab_size=n_vocab, model_type='unigram',
      normalization_rule_name='identity', remove_extra_whitespaces=False, byte_fallback=True,
      character_coverage=0.9995, max_sentence_length=1 << 20, num_threads=1, minloglevel=2)
  except RuntimeError as error:
    raise InputError(f'cannot train a sentencepiece model of {n_vocab} entries: {error}') from None
  return SentencePiece(model.getvalue())


class SentencePiece:
  """A sentencepiece model."""

  name = 'sentencepiece'
  text_prefix = ()

  def __init__(self, model):
    """Create from the contents (bytes) of a `.model` file."""
    import sentencepiece
    self.files = {'sentencepiece.model': model}
    self.digest = digest(model)
    if not model:  # the library accepts it and waits for a later model
      raise InputError('not a sentencepiece model: it is empty')
    self.coder = native.call('not a sentencepiece model', sentencepiece.SentencePieceProcessor,
                             model_proto=model)
    self.n_vocab = self.coder.vocab_size()
    end = self.coder.eos_id()
    self.end_of_text = self.start_of_text = end if end >= 0 else None
    self.eos_ids = default_eos_ids(self.end_of_text)
    control = filter(self.coder.is_control, range(self.n_vocab))
    self.special_tokens = {self.coder.id_to_piece(i): i for i in control}
    # Whether the model adds a space before a text.
    pieces = native.call('not a sentencepiece model', self.coder.encode, 'a', out_type=str)
    self._adds_space = bool(pieces) and pieces[0].startswith(SPACE)

  def encode(self, text):
    """Return int32[n] ids of the text, without start and end tokens."""
    return np.array(native.call('the sentencepiece model cannot encode a text', self.coder.encode, text),
                    np.int32)

  def encode_part(self, text, first):
    """Return int32[n] ids of a part of a document (see `files.cut_position`).

    The ids equal those in the whole document if no entry of the model spans white space, which is the
    default of training.
    """
    if first or not self._adds_space:
      return self.encode(text)
    ids = self.encode(text.removeprefix(' '))
    # The added space is a separate entry, except before a word.
    separate = len(ids) and self.coder.id_to_piece(int(ids[0])) == SPACE and text[0] != ' '
    return ids[1:] if separate else ids

  def decode(self, ids):
    """Return the text of the ids. White space and normalized text may differ from the original."""
    return native.call('the sentencepiece model cannot decode ids', self.coder.decode,
                       np.asarray(ids).tolist())

  def save(self, folder):
    """Write the tokenizer's file into the folder, which is created if needed."""
    save_files(folder, saved_files(self))
