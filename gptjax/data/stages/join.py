"""The stage `join`: the shards, the document indexes and `skipped.txt`, from the results of `encode`.

Each file is the result of a task; its record has the digests. The task that finds the records of all files
complete writes the manifest, with the same content whichever task it is.
"""

import base64
import bisect
import collections
import hashlib
import itertools
import json

import numpy as np

from gptjax.data import encode
from gptjax.data.corpus import corpus_manifest, held_out, tree
from gptjax.data.stages import excluded, judge, tokenizer, work
from gptjax.errors import InputError
from gptjax.storage.files import access, paths

SKIPPED_BYTES = 1 << 22  # of skipped.txt that are copied at a time
SKIPPED = 'skipped.txt'  # lists the documents that were left out because of a problem


class Stream:
  """The tokens of a split, or the first token of each document, from the results of all parts.

  Args:
    job: of `prepare`.
    suffix: of the files.
    counts: items in the file of each part.
    dtype: of the items.
  """

  def __init__(self, job, suffix, counts, dtype):
    self._folder, self._suffix, self._dtype = job.work / 'encode', suffix, dtype
    self._offsets = [0, *itertools.accumulate(counts)]

  def read(self, start, stop):
    """Return [(part, array)]: the items [start, stop) in arrays of one part each."""
    first = bisect.bisect_right(self._offsets, start) - 1
    found, ranges = [], []
    for part in range(first, len(self._offsets) - 1):
      low, high = max(start, self._offsets[part]), min(stop, self._offsets[part + 1])
      if self._offsets[part] >= stop:
        break
      if low < high:
        found.append(part)
        ranges.append((self._folder / f'{part:05d}.{self._suffix}', self._dtype,
                       low - self._offsets[part], high - self._offsets[part]))
    return list(zip(found, work.read_ranges(ranges), strict=True))

  def tokens(self, start, stop):
    """Return the items [start, stop) as one array."""
    return np.concatenate([np.empty(0, self._dtype), *(array for _, array in self.read(start, stop))])


def encoded(job):
  """Return the records of all parts, after `encode`."""
  return work.read_records(job, 'encode', job.n_parts)


def files(job, records):
  """Return [(name of a file, split or '', number of the shard or -1)] of the corpus."""
  found = [(SKIPPED, '', -1)]
  for split in encode.SPLITS:
    tokens, documents = (sum(record['splits'][split][what] for record in records)
                         for what in ('tokens', 'documents'))
    if documents:
      found.append((f'{split}-documents.bin', split, -1))
      found += [(f'{split}-{shard:05d}.bin', split, shard) for shard in range(-(-tokens // job.shard_tokens))]
  return found


def n_files(job):
  """Return the number of files."""
  return len(files(job, encoded(job)))


def join(job, number):
  """Write a file of the corpus."""
  records = encoded(job)
  name, split, shard = files(job, records)[number]
  write = _write_skipped if not split else _write_index if shard < 0 else _write_shard
  record = write(job, records, name, split, shard)
  work.sync_names(job.out)
  work.write_record(job.work / 'join', f'{number:05d}', {'file': name, **record})


def _write_skipped(job, records, name, split, shard):
  """Write `skipped.txt`, unless it would be empty."""
  del split, shard
  if not any(record['skipped_bytes'] for record in records):
    return {}
  with work.writing(paths.location(job.out) / name) as file:
    for part, record in enumerate(records):
      path, size = job.work / 'encode' / f'{part:05d}.skipped', record['skipped_bytes']
      for start in range(0, size, SKIPPED_BYTES):
        [text] = work.read_ranges([(path, 'u1', start, min(start + SKIPPED_BYTES, size))])
        file.write(text.data)
  return {}


def _write_index(job, records, name, split, shard):
  """Write the first token of each document of a split."""
  del shard
  totals = [record['splits'][split] for record in records]
  before = np.array([0, *itertools.accumulate(total['tokens'] for total in totals)], np.uint64)
  stream = Stream(job, f'{split}-starts', [total['documents'] for total in totals], np.dtype('<u8'))
  n, digest = sum(total['documents'] for total in totals), hashlib.sha256()
  with work.writing(paths.location(job.out) / name) as file:
    for start in range(0, n, tree.BLOCK_TOKENS):
      for part, starts in stream.read(start, min(start + tree.BLOCK_TOKENS, n)):
        content = (starts + before[part]).astype('<u8').tobytes()
        digest.update(content)
        file.write(content)
  return {'sha256': digest.hexdigest()}


def _write_shard(job, records, name, split, shard):
  """Write a shard; its record has the digests of the blocks of the stream that begin in it."""
  n_vocab = tokenizer.chosen(job)['tokenizer']['n_vocab']
  counts = [record['splits'][split]['tokens'] for record in records]
  stream, n_tokens = Stream(job, split, counts, tree.id_dtype(n_vocab)), sum(counts)
  start, stop = shard * job.shard_tokens, min((shard + 1) * job.shard_tokens, n_tokens)
  digest, leaves = hashlib.sha256(), []
  with work.writing(paths.location(job.out) / name) as file:
    at = start
    while at < stop:
      block = at // tree.BLOCK_TOKENS * tree.BLOCK_TOKENS
      end = min(block + tree.BLOCK_TOKENS, n_tokens)
      # A block that begins in this shard is read whole, also where it goes on in the next shards.
      tokens = stream.tokens(at, end if at == block else min(end, stop))
      if at == block:
        leaves.append(tree.leaf(tokens, n_vocab))
      content = tokens[:stop - at].tobytes()
      digest.update(content)
      file.write(content)
      at += len(tokens[:stop - at])
  return {'tokens': stop - start, 'sha256': digest.hexdigest(), 'leaves': _packed(leaves)}


def _packed(leaves):
  """Return the digests of blocks as one text: a record with a list of the million of a shard is not read."""
  return base64.b64encode(b''.join(leaves)).decode()


def write_manifest(job):
  """Write the manifest, if all files are complete; returns it, or None if some are not."""
  records = encoded(job)
  n = len(files(job, records))
  if len(work.complete(job.work / 'join')) < n:
    return None
  joined = work.read_records(job, 'join', n)
  chosen, splits = tokenizer.chosen(job), {}
  for split in encode.SPLITS:
    totals = [record['splits'][split] for record in records]
    index = next((file for file in joined if file['file'] == f'{split}-documents.bin'), None)
    shards = [file for file in joined if 'leaves' in file and file['file'].startswith(f'{split}-')]
    if index:
      splits[split] = {
        **{what: sum(total[what] for total in totals) for what in ('tokens', 'documents', 'bytes')},
        'sha256': tree.root(base64.b64decode(shard['leaves']) for shard in shards),
        'shards': [{name: shard[name] for name in ('file', 'tokens', 'sha256')} for shard in shards],
        'index': {name: index[name] for name in ('file', 'sha256')}}
  skipped = sum((collections.Counter(record['skipped']) for record in records), start=collections.Counter())
  if not splits:
    reason = f'document left after filtering: {dict(skipped)}' if skipped else 'documents: they are empty'
    raise InputError(f'the sources {" ".join(job.settings["sources"])} have no {reason}')
  manifest = {
    'version': corpus_manifest.VERSION, 'dtype': tree.id_dtype(chosen['tokenizer']['n_vocab']).name,
    'tokenizer': chosen['tokenizer'], 'sources': job.settings['sources'],
    'clean': job.reading.recipe.description, 'validation_fraction': job.validation_fraction,
    'validation': held_out.describe(chosen['rule'], job.validation_fraction, job.seq_len),
    'splits': splits, 'skipped': dict(skipped), 'settings': job.settings, **_no_origin(job), **_shared(job),
    'content': corpus_manifest.content_digest(chosen['tokenizer'], splits)}
  manifest['digest'] = corpus_manifest.manifest_digest(manifest)
  tokenizer.copy_files(job)
  path, text = job.out / corpus_manifest.MANIFEST, json.dumps(manifest, sort_keys=True, indent=1) + '\n'
  if not access.create(path, text) and access.read(path) != text.encode():
    raise InputError(f'{job.out} has a manifest now, of another process: run the same command again')
  return manifest


def _no_origin(job):
  """Return the count of documents without a url or domain, if filters need one."""
  if not {'blocked_domain', 'wikipedia'} & set(job.reading.recipe.filters):
    return {}
  return {'no_origin': {'documents': sum(record['no_origin'] for record in judge.records(job)),
                        'of': sum(segment.documents for segment in judge.segments(job).all)}}


def _shared(job):
  """Return what the sources share with each test set, if there are any."""
  if not job.excluded:
    return {}
  records, keys = judge.records(job), excluded.keys(job)
  found = np.zeros(len(keys.keys.keys), bool)
  for number in range(len(records)):
    found[work.read(job.work / 'judge' / f'{number:05d}.found', '<u4')] = True
  return {'excluded': {name: {
    **counts, 'ngrams_found': int(found[keys.members[name]].sum()),
    'source_documents': sum(record['shared'][name] for record in records)}
    for name, counts in job.excluded.counts.items()}}
