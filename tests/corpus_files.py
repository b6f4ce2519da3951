"""Writes small corpora in the agreed layout, straight from the description of the folder."""

import hashlib
import json

import numpy as np


def write_corpus(folder, documents, *, validation=(), n_vocab=1000, shard_tokens=10**9,
                 dtype='uint16', tokenizer_digest='f' * 64):
  """Writes lists of token ids (end-of-text included) as a corpus; returns its folder, a string."""
  folder.mkdir(parents=True, exist_ok=True)
  splits = {}
  for name, docs in (('train', documents), ('validation', validation)):
    if len(docs):
      splits[name] = _write_split(folder, name, docs, shard_tokens, dtype)
  manifest = {
    'version': 2, 'dtype': dtype, 'sources': ['test'], 'clean': '', 'validation_fraction': 0.0,
    'tokenizer': {'name': 'bpe', 'digest': tokenizer_digest, 'n_vocab': n_vocab,
                  'end_of_text': n_vocab - 1},
    'splits': splits, 'skipped': {}}
  content = {'tokenizer': tokenizer_digest, 'splits': {
    name: [split['sha256'], split['index']['sha256']] for name, split in splits.items()}}
  manifest['content'] = digest_of(content)
  write_manifest(folder, manifest)
  return str(folder)


def write_manifest(folder, manifest):
  """Writes manifest.json with the right digest."""
  fields = {key: value for key, value in manifest.items() if key != 'digest'}
  fields['digest'] = digest_of(fields)
  (folder / 'manifest.json').write_text(json.dumps(fields, sort_keys=True, indent=1))


def digest_of(value):
  return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


def _write_split(folder, name, documents, shard_tokens, dtype):
  stream = np.concatenate(documents).astype({'uint16': '<u2', 'uint32': '<u4'}[dtype])
  starts = np.cumsum([0, *(len(d) for d in documents)])[:-1].astype('<u8')
  shards = [_write(folder, f'{name}-{i:05d}.bin', stream[at:at + shard_tokens])
            for i, at in enumerate(range(0, len(stream), shard_tokens))]
  index = _write(folder, f'{name}-documents.bin', starts)
  del index['tokens']
  return {'tokens': len(stream), 'documents': len(documents), 'bytes': 3 * len(stream),
          'sha256': hashlib.sha256(stream.tobytes()).hexdigest(), 'shards': shards, 'index': index}


def _write(folder, file, array):
  (folder / file).write_bytes(array.tobytes())
  return {'file': file, 'tokens': len(array), 'sha256': hashlib.sha256(array.tobytes()).hexdigest()}


def random_documents(seed, n, longest=40, n_vocab=1000):
  """n documents of random tokens, each ended by the last id of the vocabulary."""
  random = np.random.default_rng(seed)
  return [np.append(random.integers(0, n_vocab - 1, random.integers(0, longest)), n_vocab - 1)
          for _ in range(n)]
