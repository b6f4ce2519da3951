"""Tokenizers of the sentencepiece library, and their training."""

import io

import numpy as np

from gptjax.data.tokenizers import native
from gptjax.data.tokenizers.tokenizer_files import default_eos_ids, digest, save_files, saved_files
from gptjax.errors import InputError

SPACE = '\u2581'  # sentencepiece's


def train_sentencepiece(texts, n_vocab):
  """A sentencepiece unigram model trained on the lines of `texts`; the same for the same input.

  It keeps the text as it is (no normalisation, bytes for what it has not seen); id 0 is unknown, 1
  and 2 begin and end a text.

  Args:
    texts: iterable of str.
    n_vocab: entries, with 3 marks and 256 bytes.

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
    raise InputError(f'no sentencepiece model of {n_vocab} entries: {error}') from None
  return SentencePiece(model.getvalue())


class SentencePiece:
  """A sentencepiece model."""

  name = 'sentencepiece'

  def __init__(self, model):
    """From the contents (bytes) of a `.model` file."""
    import sentencepiece
    self.files = {'sentencepiece.model': model}
    self.digest = digest(model)
    if not model:  # which the library takes for one that comes later
      raise InputError('not a sentencepiece model: it is empty')
    self.coder = native.call('not a sentencepiece model', sentencepiece.SentencePieceProcessor,
                             model_proto=model)
    self.n_vocab = self.coder.vocab_size()
    end = self.coder.eos_id()
    self.end_of_text = end if end >= 0 else None
    self.eos_ids = default_eos_ids(self.end_of_text)
    control = filter(self.coder.is_control, range(self.n_vocab))
    self.special_tokens = {self.coder.id_to_piece(i): i for i in control}
    # Whether a text is encoded as if a space stood before it.
    pieces = native.call('not a sentencepiece model', self.coder.encode, 'a', out_type=str)
    self._adds_space = bool(pieces) and pieces[0].startswith(SPACE)

  def encode(self, text):
    """int32[n] ids of the text, without begin and end marks."""
    return np.array(native.call('the sentencepiece model cannot encode a text', self.coder.encode, text),
                    np.int32)

  def encode_part(self, text, first):
    """int32[n] ids of a part of a document (see `files.cut`).

    Parts give what the whole gives where no entry of the model spans white space, which is what
    models are trained to by default.
    """
    if first or not self._adds_space:
      return self.encode(text)
    ids = self.encode(text.removeprefix(' '))
    # Before anything but a word, the added space is an entry of its own.
    alone = len(ids) and self.coder.id_to_piece(int(ids[0])) == SPACE and text[0] != ' '
    return ids[1:] if alone else ids

  def decode(self, ids):
    """The text of the ids. White space and what the model normalises are not as they were."""
    return native.call('the sentencepiece model cannot decode ids', self.coder.decode,
                       np.asarray(ids).tolist())

  def save(self, folder):
    """Writes the tokenizer's file into the folder, which is made if need be."""
    save_files(folder, saved_files(self))
