"""Character-level tokenizers: each character of the training text is an entry.

The entries are the characters in the order of their code points, and `<|endoftext|>` as the last, which
separates documents; that of a model of nanoGPT has no such entry (`without_end`). `decode(encode(text)) ==
text` for every text that can be encoded. A text with any other character is refused, because no embedding was
trained for it, and a substitute would not be reversible.
"""

import itertools
import json
from pathlib import Path

import numpy as np

from gptjax.data.tokenizers.byte_bpe import END_OF_TEXT
from gptjax.data.tokenizers.tokenizer_files import (
  default_eos_ids,
  digest,
  read_file,
  save_files,
  saved_files,
)
from gptjax.errors import InputError
from gptjax.storage.files import json_files
from gptjax.text import text_checks

FILE = 'characters.json'
# Of the same tokenizer in the `tokenizers` library: how it splits a text, and an entry that it does not have.
PATTERN, NO_UNKNOWN = r'[\s\S]', '<unk>'
MAX_SHOWN = 5  # characters that a message about unknown ones repeats


def train_characters(texts):
  """Return the tokenizer of all characters in `texts`.

  Args:
    texts: iterable of str.

  Raises:
    ValueError: the texts are empty, or are not valid Unicode.
  """
  found = set()
  for text in texts:
    found.update(text)
  if not found:
    raise InputError('the text for a character-level tokenizer is empty: give at least one character')
  return Characters(encode_entries([*sorted(found), END_OF_TEXT]))


def without_end(tokenizer):
  """Return a tokenizer of the same characters that has no end-of-text token, as nanoGPT numbers them."""
  return Characters(encode_entries(tokenizer.entries[:tokenizer.n_characters]))


def from_library(whole):
  """Return the tokenizer that a parsed tokenizer.json of an exported one describes; None if it is another."""
  model, split = whole.get('model'), whole.get('pre_tokenizer')
  if not (isinstance(model, dict) and isinstance(split, dict) and model.get('type') == 'WordLevel'
          and isinstance(model.get('vocab'), dict) and whole.get('normalizer') is None
          and split.get('type') == 'Split' and split.get('pattern') == {'Regex': PATTERN}
          and split.get('behavior') == 'Isolated' and split.get('invert') is False):
    return None
  vocab = model['vocab']
  if model.get('unk_token') != NO_UNKNOWN or not all(type(i) is int for i in vocab.values()):
    return None
  entries = sorted(vocab, key=vocab.__getitem__)
  if not are_entries(entries) or sorted(vocab.values()) != list(range(len(entries))):
    return None
  return Characters(encode_entries(entries))


def encode_entries(entries):
  """Return the content (bytes) of `characters.json`: a JSON array of the entries in id order."""
  return (json.dumps(entries, ensure_ascii=True) + '\n').encode()


class Characters:
  """A character-level tokenizer."""

  name = 'char'
  text_prefix = ()

  @classmethod
  def read(cls, folder):
    """Read `characters.json` in a folder."""
    return cls(read_file(Path(folder) / FILE))

  def __init__(self, content):
    """Create from the content (bytes) of `characters.json`."""
    entries = _parse(content)
    self.files = {FILE: content}
    self.digest = digest(content)
    self.entries = entries
    has_end = entries[-1] == END_OF_TEXT
    self.n_vocab, self.n_characters = len(entries), len(entries) - has_end
    self.end_of_text = self.start_of_text = self.n_characters if has_end else None
    self.eos_ids = default_eos_ids(self.end_of_text)
    self.special_tokens = {END_OF_TEXT: self.end_of_text} if has_end else {}
    self._code_points = np.array(list(map(ord, entries[:self.n_characters])), np.uint32)  # sorted

  def encode(self, text):
    """Return int32[n] ids of the text; InputError for characters that are not entries."""
    code_points = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), '<u4')
    ids = np.searchsorted(self._code_points, code_points)
    known = self._code_points[np.minimum(ids, self.n_characters - 1)] == code_points
    if not known.all():
      unknown = sorted(set(code_points[~known].tolist()))
      names = ', '.join(f'{chr(c)!r} (U+{c:04X})' for c in unknown[:MAX_SHOWN])
      raise InputError(f'the text has {names}{", ..." * (len(unknown) > MAX_SHOWN)}: not among the '
                       f'{self.n_characters:,} characters of the tokenizer {self.name}, which are those of '
                       'its training text: remove them, or train the tokenizer on a text that has them')
    return ids.astype(np.int32)

  def encode_part(self, text, first):
    """Return int32[n] ids of a part of a document (see `files.cut_position`), as in the whole document."""
    del first
    return self.encode(text)

  def decode(self, ids):
    """Return the text of the ids; InputError for ids that are not entries."""
    ids = np.asarray(ids, np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= self.n_vocab):
      raise InputError(f'ids from {ids.min()} to {ids.max()} are not all among the {self.n_vocab} entries of '
                       f'the tokenizer {self.name}')
    return ''.join(map(self.entries.__getitem__, ids.tolist()))

  def save(self, folder):
    """Write the tokenizer's file into the folder, which is created if needed."""
    save_files(folder, saved_files(self))


def _parse(content):
  """Return the entries in `characters.json`; InputError unless they are as `encode_entries` writes them."""
  try:
    entries = json_files.parse(content)
  except ValueError as error:
    raise InputError(f'{FILE} cannot be read, it is not JSON: {error}') from None
  text_checks.require_valid_json(entries, FILE)
  if not are_entries(entries):
    raise InputError(f'{FILE} is not that of a character-level tokenizer: it must be a list of single '
                     f'characters, sorted, without duplicates; {END_OF_TEXT} may be the last')
  return entries


def are_entries(entries):
  """Whether a value is a list of sorted single characters, which the end-of-text token may follow."""
  if not isinstance(entries, list) or not entries:
    return False
  characters = entries[:-1] if entries[-1] == END_OF_TEXT else entries
  return (bool(characters) and all(isinstance(c, str) and len(c) == 1 for c in characters)
          and all(a < b for a, b in itertools.pairwise(characters)))
