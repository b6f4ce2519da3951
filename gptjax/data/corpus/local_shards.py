"""Memory maps of the files of a corpus on this machine, and their verification.

The manifest of a corpus is untrusted, and that of adopted files may name any folder of this machine. Shards
outside the folder of the corpus are therefore used only after their hash has been compared with the manifest,
whose author must have known their content. Where the corpus is not verified as a whole, each of them is
verified when it is first used.
"""

import concurrent.futures
import hashlib

import numpy as np

from gptjax.command import bars
from gptjax.errors import InputError
from gptjax.storage.files import cache, local, paths

STARTS = np.dtype('<u8')  # of the index: the first token of each document
# What to do about a missing file.
LOST = 'copy it again, or prepare the corpus again'
MOVED = 'if the files have moved, run the same gptjax adopt again with their new folder; else copy it again'
_verified = set()  # (path, size, time of the last change, SHA-256) of files that this process has verified


def open_split(root, tokens_folder, entry, dtype, n_vocab, verify, lazily=False):
  """Return (arrays of ids, one per shard; uint64[n_documents], the first token of each document).

  The arrays are in a list, or in VerifiedShards, which are indexed like one.

  Args:
    root: Path of the corpus.
    tokens_folder: Path of its shards.
    entry: of the split in the manifest.
    dtype: of the ids.
    n_vocab: entries of the tokenizer.
    verify, lazily: as for `reader.open_corpus`.

  Raises:
    InputError: a file is missing or damaged.
  """
  files = [(tokens_folder, shard, dtype, shard['tokens']) for shard in entry['shards']]
  files.append((root, entry['index'], STARTS, entry['documents']))
  for folder, file, *_ in files:
    path = paths.below(folder, file['file'])
    if not verify and not path.resolve().is_relative_to(folder.resolve()):
      raise InputError(f'{path} is a link to a file outside the corpus, and its content is not verified '
                       'here: replace the link by the file')
  outside = not tokens_folder.resolve().is_relative_to(root.resolve())
  *shards, starts = (_map(folder / file['file'], dtype, count, file.get('offset', 0),
                          MOVED if outside and folder == tokens_folder else LOST)
                     for folder, file, dtype, count in files)
  if verify:
    _verify(root, files[-1:] if lazily else files, n_vocab)
  if lazily or (outside and not verify):
    shards = VerifiedShards(shards, root, files[:-1], n_vocab)
  return shards, starts


class VerifiedShards:
  """The shards of a split, indexed like a list of arrays, each of which is verified when it is first read."""

  def __init__(self, shards, root, files, n_vocab):
    self._shards, self._root, self._files, self._n_vocab = shards, root, files, n_vocab
    self._used = set()

  def __len__(self):
    return len(self._shards)

  def __getitem__(self, number):
    number = range(len(self._shards))[number]
    if number not in self._used:
      folder, file, *_ = self._files[number]
      path = folder / file['file']
      state = path, local.size(path), local.modified(path), file['sha256']
      if state not in _verified:
        _verify(self._root, [self._files[number]], self._n_vocab)
        _verified.add(state)
      self._used.add(number)
    return self._shards[number]


def open_index(root, index, n_documents, verify):
  """Return uint64[n_documents], the first token of each document, of a corpus whose shards are elsewhere."""
  return open_split(root, root, {'shards': [], 'index': index, 'documents': n_documents}, None, 0, verify)[1]


def _map(path, dtype, count, offset, advice):
  """Memory-map a file as a read-only array of `count` items; InputError if missing or of another size."""
  size = offset + count * dtype.itemsize
  try:
    actual = local.size(path)
  except FileNotFoundError:
    raise InputError(f'{path} is missing: {advice}') from None
  if actual != size:
    raise InputError(cache.wrong_size(path, actual, size))
  return local.mapped(path, dtype, count, offset)


def _verify(root, files, n_vocab):
  """Raise InputError for the first file with another hash, or with an id of n_vocab or more."""
  def check(folder, file, dtype):
    path, digest, largest, header = folder / file['file'], hashlib.sha256(), -1, file.get('offset', 0)
    for chunk in local.chunks(path):
      digest.update(chunk)
      bar.update(len(chunk))
      largest = max(largest, int(np.frombuffer(chunk[header:], dtype).max(initial=0)))
      header = 0
    if digest.hexdigest() != file['sha256']:
      raise InputError(f'{path} is damaged: its SHA-256 is {digest.hexdigest()[:12]}, not '
                       f'{file["sha256"][:12]} as in its manifest; copy it again, or prepare the corpus '
                       'again')
    if dtype != STARTS and largest >= n_vocab:
      raise InputError(too_large(path, largest, n_vocab))
  size = sum(dtype.itemsize * count for *_, dtype, count in files)
  bar = bars.bar(desc=f'verifying {root}', total=size, unit='B', unit_scale=True, delay=1, leave=False)
  with bar, concurrent.futures.ThreadPoolExecutor() as pool:
    list(pool.map(lambda file: check(*file[:3]), files))


def too_large(path, token, n_vocab):
  """Return the message about a token that is not an entry of the tokenizer."""
  return f'{path} has the token {token}, but its tokenizer only {n_vocab}: prepare the corpus again'
