"""Writes files of tokens in the layouts of other projects, straight from their descriptions."""

import hashlib
import json
import struct

import corpus_files
import numpy as np

from gptjax.data.corpus import tree
from gptjax.data.tokenizers import byte_bpe

DTYPES = {'uint16': ('<u2', 8), 'int32': ('<i4', 4), 'int16': ('<i2', 3), 'int64': ('<i8', 5)}  # and code


def tokenizer(folder):
  """A small BPE, saved in a folder; returns it and its spec."""
  trained = byte_bpe.train_bpe(['the cat sat on the mat, and the dog saw the cat'] * 20, 270)
  trained.save(folder)
  return trained, f'bpe:{folder}'


def documents(tokenizer, texts):
  """Ids of texts, each ended by end-of-text."""
  return [np.append(tokenizer.encode(text), tokenizer.end_of_text) for text in texts]


def texts(seed, n, longest=60):
  random = np.random.default_rng(seed)
  letters = list('the cat sat\n é')
  return [''.join(random.choice(letters, random.integers(1, longest))) for _ in range(n)]


def raw(path, ids, dtype='<u2'):
  np.asarray(ids).astype(dtype).tofile(path)


def llmc(path, ids, magic=20240520, version=1, count=None, dtype='<u2'):
  header = np.zeros(256, '<i4')
  header[:3] = magic, version, len(ids) if count is None else count
  path.write_bytes(header.tobytes() + np.asarray(ids).astype(dtype).tobytes())


def npy(path, ids, dtype=np.uint16):
  with path.open('wb') as file:
    np.save(file, np.asarray(ids, dtype))


def megatron(prefix, sequences, bounds=None, dtype='uint16', modes=False):
  """Sequences of ids; bounds: first sequence of each document, and their number."""
  kind, code = DTYPES[dtype]
  bounds = range(len(sequences) + 1) if bounds is None else bounds
  raw(prefix.with_name(f'{prefix.name}.bin'), np.concatenate(sequences), kind)
  lengths = [len(sequence) for sequence in sequences]
  pointers = np.cumsum([0, *lengths])[:-1] * np.dtype(kind).itemsize
  prefix.with_name(f'{prefix.name}.idx').write_bytes(
    b'MMIDIDX\0\0' + struct.pack('<QBQQ', 1, code, len(lengths), len(bounds))
    + np.array(lengths, '<i4').tobytes() + pointers.astype('<i8').tobytes()
    + np.array(bounds, '<i8').tobytes() + b'\0' * (len(lengths) if modes else 0))


def datatrove(path, documents, dtype='<u2', metadata=''):
  raw(path, np.concatenate(documents), dtype)
  ends = np.cumsum([len(document) for document in documents]).astype('<u8')
  path.with_name(f'{path.name}.index').write_bytes(ends.tobytes())
  if metadata:
    path.with_name(f'{path.name}.metadata').write_text(f'{metadata}\n{ends[-1]}\n1 T')


def corpus(folder, splits, tokenizer, dtype='uint16', **options):
  """A corpus of version 3 of {split: documents} with a tokenizer, which has all its digests."""
  corpus_files.write_corpus(folder, splits['train'], validation=splits.get('validation', ()), dtype=dtype,
                            n_vocab=tokenizer.n_vocab, tokenizer_digest=tokenizer.digest, **options)
  tokenizer.save(folder / 'tokenizer')
  manifest = json.loads((folder / 'manifest.json').read_text())
  for name, entry in manifest['splits'].items():
    stream = np.concatenate(splits[name]).astype('<u2' if tokenizer.n_vocab <= 65536 else '<u4')
    leaves = [hashlib.sha256(stream[at:at + tree.BLOCK_TOKENS].tobytes()).digest()
              for at in range(0, len(stream), tree.BLOCK_TOKENS)]
    entry['sha256'] = hashlib.sha256(b''.join(leaves)).hexdigest()
  manifest['version'] = 3
  manifest['content'] = corpus_files.digest_of({'tokenizer': tokenizer.digest, 'splits': {
    name: [entry['sha256'], entry['index']['sha256']] for name, entry in manifest['splits'].items()}})
  corpus_files.write_manifest(folder, manifest)
  return manifest
