"""Shards of a corpus in a bucket, copied to this machine while training reads those that are here already.

Threads in the background copy whole shards into the cache (`storage.files.cache`): first those for which a
reader waits, then those that coming batches read, in their order (`fetch_ahead`). A shard is verified while
it is downloaded, and used only then. What the cache has no room for is read by ranges, in each step again.
"""

import errno

import numpy as np

from gptjax.data.corpus import local_shards, shard_queue
from gptjax.errors import InputError
from gptjax.storage.files import buckets, cache, local
from gptjax.storage.files.paths import Url

NEAR = 1 << 18  # tokens that are read around a slice
_queue = shard_queue.Queue()
_told = set()  # corpora of which some shards are read by ranges


def open_split(root, tokens_folder, entry, dtype, n_vocab, verify, lazily=False):
  """Return (Shards, uint64[n_documents]: the first token of each document) of a split in a bucket.

  Args:
    root: Url or Path of the corpus.
    tokens_folder: Url of its shards.
    entry, dtype, n_vocab: as for `local_shards.open_split`.
    verify: if False, shards are read by ranges until `fetch_ahead` has copied them.
    lazily: has no effect: shards are always verified when they are read, not before.

  Raises:
    InputError: a file is missing or has another size, or the index is damaged.
  """
  del lazily
  index = entry['index']
  shards = [_Shard(tokens_folder / shard['file'], shard, dtype, n_vocab) for shard in entry['shards']]
  sizes = [(shard.url, shard.size) for shard in shards]
  if isinstance(root, Url):
    sizes.append((root / index['file'], entry['documents'] * local_shards.STARTS.itemsize))
  present = {folder: buckets.find(folder) for folder in {url.parent for url, _ in sizes}}
  for url, size in sizes:
    if url.name not in present[url.parent]:
      raise InputError(f'{url} is missing: copy it again, or prepare the corpus again')
    if (actual := present[url.parent][url.name].size) != size:
      raise InputError(cache.wrong_size(url, actual, size))
  if isinstance(root, Url):
    starts = _read_index(root / index['file'], index['sha256'], entry['documents'], verify)
  else:
    starts = local_shards.open_index(root, index, entry['documents'], verify)
  return Shards(shards, verify), starts


def _read_index(url, sha256, count, verify):
  size = count * local_shards.STARTS.itemsize
  try:
    return _map(cache.file(url, sha256, size, verify=verify), local_shards.STARTS, count)
  except (cache.TooSmall, FileNotFoundError):
    content, check = buckets.read(url, size), cache.digest_check(url, sha256, size)
    check(content)
    return np.frombuffer(content, local_shards.STARTS)


def _map(path, dtype, count, offset=0):
  """Memory-map a file of the cache, which then stays there; FileNotFoundError if it was deleted before."""
  with local.opened(path) as file:
    cache.hold(file)
    return local.mapped(file, dtype, count, offset)


def fetch_ahead(corpora, held_out, batches, note=shard_queue.print_line, while_waiting=lambda: None):
  """Begin to copy all shards of corpora in buckets, in the order in which they will be read.

  Corpora on this machine need nothing and cost nothing. A call replaces the order of the one before.

  Args:
    corpora: list of reader.Corpus.
    held_out: list of reader.Corpus or None, copied after the shards of the first batches.
    batches: iterator of reader.BatchRows of `corpora` that this process will read; consumed in the
      background, up to the batch at which all shards are known.
    note: function that logs a line.
    while_waiting: called up to once per second while a reader waits and bytes of its shards arrive, from its
      thread; what it raises ends the wait.
  """
  if any(isinstance(corpus.shards, Shards) for corpus in (*corpora, *filter(None, held_out))):
    _queue.begin(_order(corpora, [corpus for corpus in held_out if corpus], batches), note, while_waiting)


def verify(corpora):
  """Read all shards of corpora in buckets whole, and check them; InputError for the first that is damaged."""
  fetch_ahead([], corpora, ())
  for corpus in corpora:
    if isinstance(corpus.shards, Shards):
      corpus.shards.verify()


def _order(corpora, held_out, batches):
  """Yield lists of shards: of each batch until all of them are known, then the others."""
  remote = [corpus for corpus in corpora if isinstance(corpus.shards, Shards)]
  unseen = {shard for corpus in remote for shard in corpus.shards.all}
  for windows in batches if unseen else ():
    used = []
    for number, corpus in enumerate(corpora):
      if isinstance(corpus.shards, Shards):
        own = windows.corpus == number
        starts = windows.start[own]
        spans = _spans(corpus, starts, starts + windows.length[own] + 1)
        used += [corpus.shards.all[shard] for shard in dict.fromkeys(shard for shard, *_ in spans)]
    unseen -= set(used)
    yield used
    if not unseen:
      break
  for corpus in (*held_out, *remote):
    if isinstance(corpus.shards, Shards):
      yield corpus.shards.all


def _spans(corpus, starts, stops):
  """Return [(shard, first, end)]: what the windows [start, stop) of tokens read of each shard.

  A window that goes beyond the last token continues with the first.
  """
  spans, offsets, last = [], corpus.shard_offsets.tolist(), corpus.n_tokens
  shards = np.searchsorted(corpus.shard_offsets, starts, side='right') - 1
  for start, stop, shard in zip(starts.tolist(), stops.tolist(), shards.tolist(), strict=True):
    while start < stop:
      end = min(stop, offsets[shard + 1])
      if start < end:
        spans.append((shard, start - offsets[shard], end - offsets[shard]))
      start, shard = end, shard + 1
      if start == last:
        start, stop, shard = 0, stop - last, 0
  return spans


class Shards:
  """The shards of a split, indexed like a list of arrays of ids.

  An access waits until the shard is in the cache. With `verify=False` it does not: what is not there yet is
  read by ranges.
  """

  def __init__(self, shards, verify):
    self.all, self._verify = shards, verify
    for shard in shards:
      shard.verify = verify
      if not shard.n_tokens or (not verify and cache.held(shard.sha256, shard.size)):
        shard.error = shard.load()

  def __len__(self):
    return len(self.all)

  def __getitem__(self, number):
    return self._contents([number])[number]

  def _contents(self, numbers):
    shards = {number: self.all[number] for number in numbers}
    if self._verify:
      _queue.wait(list(shards.values()))
    return {number: shard.get() for number, shard in shards.items()}

  def for_windows(self, corpus, starts, stops):
    """Return what `corpus.shards` has for the windows [start, stop), int64[n] each, indexed like it.

    All that is read by ranges is read here, concurrently.
    """
    if all(isinstance(shard.content, np.ndarray) for shard in self.all):
      return [shard.content for shard in self.all]
    spans = _spans(corpus, starts, stops)
    contents = self._contents(dict.fromkeys(shard for shard, *_ in spans))
    by_ranges = [span for span in dict.fromkeys(spans) if isinstance(contents[span[0]], _Ranges)]
    tokens = _read_ranges([(self.all[number], first, end) for number, first, end in by_ranges])
    for number in {number for number, *_ in by_ranges}:
      contents[number] = _Ranges(self.all[number], {
        (first, end): part for (n, first, end), part in zip(by_ranges, tokens, strict=True) if n == number})
    return contents

  def verify(self):
    """Read all shards whole and check them; InputError for the first that is damaged."""
    for shard in self.all:
      _queue.wait([shard])
      if isinstance(shard.get(), _Ranges):
        check, check_ids = cache.digest_check(shard.url, shard.sha256, shard.size), shard.check_ids
        header = shard.offset
        for chunk in buckets.chunks(shard.url, shard.size):
          check(chunk)
          check_ids(chunk[header:])
          header = 0


class _Shard:
  """One shard: `content` is None until it is loaded, then an array, or _Ranges if the cache has no room."""

  def __init__(self, url, entry, dtype, n_vocab):
    self.url, self.sha256, self.n_tokens = url, entry['sha256'], entry['tokens']
    self.dtype, self.n_vocab, self.offset = dtype, n_vocab, entry.get('offset', 0)
    self.size = self.offset + self.n_tokens * dtype.itemsize
    self.content = self.error = None
    self.claimed = self.failed = False  # see shard_queue
    self.n_downloaded, self.verify = 0, True
    self.ranges = _Ranges(self)

  @property
  def done(self):
    return self.content is not None or self.error is not None

  def get(self):
    if self.error is not None:
      raise self.error
    return self.ranges if self.content is None else self.content

  def check_ids(self, chunk):
    largest = int(np.frombuffer(chunk, self.dtype).max(initial=0))
    if largest >= self.n_vocab:
      raise InputError(local_shards.too_large(self.url, largest, self.n_vocab))

  def load(self):
    """Set `content`, after copying the shard into the cache if there is room; returns an error or None."""
    self.claimed, self.n_downloaded = True, 0
    try:
      self.content = self._mapped()
    except BaseException as error:  # raised where the shard is read
      return error
    return None

  def _mapped(self):
    if not self.n_tokens:
      return np.empty(0, self.dtype)
    def on_bytes(chunk):
      self.check_ids(chunk[0 if self.n_downloaded else self.offset:])
      self.n_downloaded += len(chunk)
    try:
      while cache.reserve(self.sha256, self.size):
        self.n_downloaded = 0
        path = cache.file(self.url, self.sha256, self.size, on_bytes, verify=self.verify)
        try:
          return _map(path, self.dtype, self.n_tokens, self.offset)
        except FileNotFoundError:  # another process has made room for its own files
          continue
    except cache.TooSmall:
      pass
    except OSError as error:
      if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise
    if self.url.parent not in _told:
      _told.add(self.url.parent)
      _queue.note(f'the cache has no room for all shards of {self.url.parent}: the others are read by ranges '
                  'in each step, which is slower: free some of the disk, or set config.data.cache_dir or '
                  'config.data.cache_gb')
    return self.ranges


class _Ranges:
  """A shard of which slices are read from the bucket; `read` has some of them: {(first, end): tokens}.

  A small slice that is not in `read` is read with what is around it, because the next one is often near.
  """

  def __init__(self, shard, read=()):
    self.shard, self.read, self._near = shard, dict(read), (0, ())

  def __getitem__(self, part):
    first, end, _ = part.indices(self.shard.n_tokens)
    if (first, end) in self.read:
      return self.read[first, end]
    start = first // NEAR * NEAR
    if end > start + NEAR:
      return _read_ranges([(self.shard, first, end)])[0]
    at, near = self._near
    if at != start or not len(near):
      near = _read_ranges([(self.shard, start, min(start + NEAR, self.shard.n_tokens))])[0]
      self._near = start, near
    return near[first - start:end - start]


def _read_ranges(spans):
  """Return [array of ids of each span (_Shard, first, end)]."""
  position = lambda shard, token: shard.offset + token * shard.dtype.itemsize
  contents = buckets.read_parts([(shard.url, position(shard, first), position(shard, end))
                                 for shard, first, end in spans])
  for (shard, *_), content in zip(spans, contents, strict=True):
    shard.check_ids(content)
  return [np.frombuffer(content, shard.dtype) for (shard, *_), content in zip(spans, contents, strict=True)]
