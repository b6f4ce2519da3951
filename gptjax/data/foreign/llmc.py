"""The shards of llm.c and modded-nanogpt: a header of 256 int32, then the ids.

https://github.com/karpathy/llm.c, dev/data/data_common.py. The header has a magic number, a version and the
number of tokens. End-of-text precedes each document.
"""

from typing import NamedTuple

import numpy as np

from gptjax.data.foreign import layout
from gptjax.errors import InputError

HEADER = np.dtype('<i4')
N_HEADER = 256
OFFSET = N_HEADER * HEADER.itemsize


class Kind(NamedTuple):
  """Shards of one dtype."""
  magic: int
  version: int
  dtype: np.dtype


KINDS = (Kind(20240520, 1, layout.UINT16),  # of GPT-2's ids
         Kind(20240801, 7, layout.UINT32))  # of Llama 3's


def header(dtype, n_tokens):
  """Return the header (bytes) of a shard."""
  kind, = (kind for kind in KINDS if kind.dtype == dtype)
  values = np.zeros(N_HEADER, HEADER)
  values[:3] = kind.magic, kind.version, n_tokens
  return values.tobytes()


def _layout(file, options):
  del options
  head = file.head(OFFSET)
  if len(head) < OFFSET:
    raise InputError(f'{file.path} has {file.size:,} bytes, fewer than the {OFFSET:,} of its header: it is '
                     'truncated; copy it again')
  magic, version, n_tokens = np.frombuffer(head, HEADER)[:3].tolist()
  dtypes = [kind.dtype for kind in KINDS if kind[:2] == (magic, version)]
  if not dtypes:
    raise InputError(f'{file.path} begins with {magic}, version {version}, not with '
                     f'{" or ".join(f"{kind.magic}, version {kind.version}" for kind in KINDS)}: it is not a '
                     'shard of llm.c; if it has only ids, it is raw:')
  if n_tokens < 1:
    raise InputError(f'{file.path} has {n_tokens:,} tokens by its header: remove it, or copy it again')
  found = layout.Layout(dtypes[0], OFFSET, n_tokens)
  layout.require_size(file, found)
  return found


FORMAT = layout.Format(('*_train*.bin', '*_val*.bin'), _layout, validation='*_val*.bin', end_first=True)
