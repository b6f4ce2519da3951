"""Files of a few documents, and what sources find in them."""

import bz2
import gzip
import json
import lzma

import pyarrow

from gptjax.data.sources import documents

COMPRESSED = ['.gz', '.zst', '.zstd', '.bz2', '.xz']
TEXTS = ['First document.\nTwo lines.', 'Second, naïve café\r\n', ' third\twith tabs ']


def read(source, separator='', tfds_dir=''):
  return [piece for unit in documents.units([source], tfds_dir)
          for piece in documents.pieces(unit, separator, tfds_dir)]


def texts(pieces):
  assert not [piece for piece in pieces if piece.problem]
  return [piece.text for piece in pieces]


def problems(pieces):
  return [(piece.location, piece.problem) for piece in pieces if piece.problem]


def compress(data, suffix):
  if suffix.endswith(('.zst', '.zstd', '.tzst')):
    return pyarrow.compress(data, codec='zstd', asbytes=True)
  if suffix.endswith('bz2'):
    return bz2.compress(data, 1)  # blocks of 100 kB
  functions = {'gz': gzip.compress, 'tgz': gzip.compress, 'xz': lzma.compress, 'txz': lzma.compress}
  return functions.get(suffix.rpartition('.')[2], bytes)(data)


def jsonl(field='text'):
  return ''.join(json.dumps({field: text}) + '\n' for text in TEXTS).encode()
