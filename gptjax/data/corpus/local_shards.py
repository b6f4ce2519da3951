"""Memory maps of the files of a corpus on this machine, and their verification."""

import concurrent.futures
import hashlib

import numpy as np

from gptjax.command import bars
from gptjax.errors import InputError
from gptjax.storage.files import cache, local, paths

STARTS = np.dtype('<u8')  # of the index: the first token of each document


def open_split(root, tokens_folder, entry, dtype, n_vocab, verify, lazily=False):
  """Return (list of arrays of ids, one per shard; uint64[n_documents], the first token of each document).

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
  *shards, starts = (_map(folder / file['file'], dtype, count, file.get('offset', 0))
                     for folder, file, dtype, count in files)
  if verify:
    _verify(root, files[-1:] if lazily else files, n_vocab)
    shards = Verified(shards, lambda number: _verify(root, [files[number]], n_vocab)) if lazily else shards
  return shards, starts


class Verified:
  """Shards, indexed like a list of arrays, each of which is verified when it is first read.

  Args:
    shards: list of arrays.
    verify: function of the number of a shard that raises InputError if it is damaged.
  """

  def __init__(self, shards, verify):
    self._shards, self._verify, self._verified = shards, verify, set()

  def __len__(self):
    return len(self._shards)

  def __getitem__(self, number):
    if number not in self._verified:
      self._verify(number)
      self._verified.add(number)
    return self._shards[number]


def open_index(root, index, n_documents, verify):
  """Return uint64[n_documents], the first token of each document, of a corpus whose shards are elsewhere."""
  return open_split(root, root, {'shards': [], 'index': index, 'documents': n_documents}, None, 0, verify)[1]


def _map(path, dtype, count, offset):
  """Memory-map a file as a read-only array of `count` items; InputError if missing or of another size."""
  size = offset + count * dtype.itemsize
  try:
    actual = local.size(path)
  except FileNotFoundError:
    raise InputError(f'{path} is missing: copy it again, or prepare the corpus again') from None
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
