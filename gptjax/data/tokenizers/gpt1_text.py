"""GPT-1's tokenizer: 40,000 merges over lower-case words (the released `text_utils.py`).

Decoding does not restore the text exactly: the case is lost, runs of white space become one space or line
break, punctuation is separated, and the repairs of `ftfy` remain. Characters outside the vocabulary become
`<unk>`.

There is no end-of-text token: the paper has none for pre-training, so documents are concatenated.
"""

import heapq
import re

import numpy as np

from gptjax.data.tokenizers import gpt1_words
from gptjax.errors import InputError
from gptjax.storage.files import json_files

FILES = ('encoder_bpe_40000.json', 'vocab_40000.bpe')
END_OF_WORD = '</w>'      # on the last symbol of a word
UNKNOWN_ID = 0       # <unk>
MAX_CACHED, MAX_CACHED_LENGTH = 1 << 17, 64  # cached words, and their maximum characters

_REPLACED = str.maketrans({'—': '-', '–': '-', '―': '-', '…': '...', '´': "'"})
# Each run of one character. The released pattern was intended to pad the backslash too, but does not.
_PADDED = re.compile(f'([{re.escape(gpt1_words.PADDED_CHARACTERS)}])\\1*')
_WHITE = re.compile(r'\s+')


def standardize(text):
  """Apply the clean-up of the released code after `ftfy.fix_text`, without the final strip."""
  text = _PADDED.sub(r' \g<0> ', text.translate(_REPLACED))
  # Equivalent to the released patterns [^\S\n]*\n\s* and [^\S\n]+, in time linear in the length of a run.
  return _WHITE.sub(lambda run: ' \n ' if '\n' in run[0] else ' ', text)


def apply_merges(symbols, ranks):
  """Return the symbols after all merges, in time n log n; each round merges one pair everywhere.

  Within a round, merges go from left to right.

  A pair that results from a merge is processed in a later round, whatever its rank: two pairs can result in
  the same symbol, so its pairs may have lower ranks than the pair that it results from.

  Args:
    symbols: list of str.
    ranks: {(symbol, symbol): rank} of the pairs to merge.
  """
  symbols, n = list(symbols), len(symbols)
  after, before = list(range(1, n + 1)), list(range(-1, n - 1))  # neighbours among the remaining symbols
  waiting, heap = {}, []  # {rank: [positions of its pair]}, and the ranks

  def add(i):
    rank = ranks.get((symbols[i], symbols[after[i]]))
    if rank is not None:
      if rank not in waiting:
        waiting[rank] = []
        heapq.heappush(heap, rank)
      waiting[rank].append(i)

  for i in range(n - 1):
    add(i)
  while heap:
    rank = heapq.heappop(heap)
    for i in sorted(waiting.pop(rank)):
      j = after[i]
      if symbols[i] is None or j == n or ranks.get((symbols[i], symbols[j])) != rank:
        continue  # an earlier merge of this round used one of the two
      symbols[i], symbols[j], after[i] = symbols[i] + symbols[j], None, after[j]
      if after[i] < n:
        before[after[i]] = i
        add(i)
      if before[i] >= 0:
        add(before[i])
  return [symbol for symbol in symbols if symbol is not None]


class GPT1:
  """GPT-1's BPE over words."""

  name = 'gpt1'
  end_of_text = start_of_text = None
  text_prefix = ()

  def __init__(self, encoder, merges):
    """Create from the contents (bytes) of `encoder_bpe_40000.json` and `vocab_40000.bpe`."""
    from gptjax.data.tokenizers import tokenizer_files
    self.files = dict(zip(FILES, (encoder, merges), strict=True))
    self.digest = tokenizer_files.digest(encoder, merges)
    try:
      self._ids = json_files.parse(encoder)
      pairs = [tuple(line.split()) for line in merges.decode().split('\n')[1:] if line]
      self._symbols = {i: symbol for symbol, i in self._ids.items()}
      valid = (all(type(i) is int for i in self._symbols) and sorted(self._symbols) == list(
        range(len(self._ids))) and all(len(pair) == 2 for pair in pairs))
    except (ValueError, AttributeError, TypeError):
      valid = False
    if not valid:
      raise InputError(f'{" and ".join(FILES)} are not those of GPT-1')
    self._ranks = {pair: i for i, pair in enumerate(pairs)}
    self.n_vocab = len(self._ids)
    self.eos_ids, self.special_tokens = (), {}
    self._cache = {}

  def encode(self, text):
    """Return int32[n] ids of the text."""
    return self.encode_part(text, True)

  def encode_part(self, text, first):
    """Return int32[n] ids of a part of a document (see `files.cut_position`), as in the whole document."""
    import ftfy
    text = standardize(ftfy.fix_text(text))
    # A document is stripped of white space. A later part may start with a line break.
    text = text.strip() if first else text.rstrip()
    ids = []
    for chunk in text.split(' '):
      if chunk:
        ids.extend(self._chunk_ids(chunk))
    return np.array(ids, np.int32)

  def _chunk_ids(self, chunk):
    """Return the ids of the text between two spaces."""
    ids = self._cache.get(chunk)
    if ids is None:
      words = ['\n'] if chunk == '\n' else gpt1_words.split_words(chunk)
      ids = [self._ids.get(symbol, UNKNOWN_ID) for word in words
             for symbol in self._merge(word.lower())]
      if len(self._cache) >= MAX_CACHED:
        self._cache.clear()
      if len(chunk) <= MAX_CACHED_LENGTH:
        self._cache[chunk] = ids
    return ids

  def _merge(self, word):
    """Return the symbols of a word: merge the pair of lowest rank everywhere until no pair has a rank."""
    return apply_merges([*word[:-1], word[-1] + END_OF_WORD], self._ranks)

  def decode(self, ids):
    """Return the words of the ids, in lower case, separated by spaces, except around line breaks."""
    text = ''.join(self._symbols[int(i)] for i in ids).replace(END_OF_WORD, ' ')
    return text.replace(' \n ', '\n').removesuffix(' ')

  def save(self, folder):
    """Write the tokenizer's files into the folder, which is created if needed."""
    from gptjax.data.tokenizers import tokenizer_files
    tokenizer_files.save_files(folder, tokenizer_files.saved_files(self))
