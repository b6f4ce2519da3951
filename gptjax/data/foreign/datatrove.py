"""datatrove's `.ds` files, with the ends of the documents beside them in `.ds.index`.

https://github.com/huggingface/datatrove, src/datatrove/pipeline/tokens/tokenizer.py. `.ds.metadata` has
`TOKENIZER|BYTES` in its first line, but only if datatrove was asked for it; without it the dtype follows from
the index, whose last number is that of all tokens.
"""

import numpy as np

from gptjax.data.foreign import layout
from gptjax.errors import InputError

ENDS = np.dtype('<u8')
DTYPES = {2: layout.UINT16, 4: layout.UINT32}  # by the bytes of an id
CHUNK = 1 << 20                                # documents
MAX_METADATA = 1 << 16                         # bytes


def _layout(file, options):
  del options
  ends = _ends(file)
  n_tokens = int(ends[-1])
  dtype = _recorded_dtype(file) or DTYPES.get(file.size // max(n_tokens, 1), layout.UINT16)
  if n_tokens < 1 or n_tokens > file.size:
    raise InputError(f'{file.path}.index ends with {n_tokens:,} tokens, but {file.name} has {file.size:,} '
                     'bytes: copy both again')
  found = layout.Layout(dtype, 0, n_tokens)
  layout.require_size(file, found)
  return found


def _indices(file):
  metadata = file.beside(f'{file.name}.metadata')
  return [file.required(f'{file.name}.index', 'the document ends'), *([metadata] if metadata else ())]


def _ends(file):
  index = _indices(file)[0]
  if not index.size or index.size % ENDS.itemsize:
    raise InputError(f'{index.path} has {index.size:,} bytes, not a multiple of {ENDS.itemsize}: it is '
                     'truncated; copy it again')
  return index.items(ENDS, index.size // ENDS.itemsize)


def _recorded_dtype(file):
  _, *metadata = _indices(file)
  line = metadata[0].head(MAX_METADATA).partition(b'\n')[0].strip() if metadata else b''
  _, bar, size = line.rpartition(b'|')
  if not bar or not size.isdigit():  # the tokenizer alone
    return None
  if int(size) not in DTYPES:
    raise InputError(f'{metadata[0].path} says that an id has {int(size)} bytes, but those of a corpus have '
                     '2 or 4: tokenize the texts again')
  return DTYPES[int(size)]


def _starts(file, found):
  ends = _ends(file)
  for at in range(0, len(ends), CHUNK):
    before = ends[max(at - 1, 0):min(at + CHUNK, len(ends)) - 1].astype(np.int64)
    yield before if at else np.append(np.int64(0), before)


FORMAT = layout.Format(('*.ds',), _layout, indices=_indices, starts=_starts)
