"""NumPy's own files, as build-nanogpt writes them.

https://github.com/karpathy/build-nanogpt, fineweb.py: end-of-text precedes each document, as in llm.c.
"""

import io
import tokenize

import numpy as np

from gptjax.data.foreign import layout
from gptjax.errors import InputError

MAGIC = b'\x93NUMPY'
MAX_HEADER = 1 << 16  # bytes
# What NumPy raises for a damaged header, which it reads as an expression of Python.
DAMAGE = (KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError, tokenize.TokenError)
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _layout(file, options):
  del options
  head = io.BytesIO(file.head(MAX_HEADER))
  try:
    shape, _, dtype = READERS[np.lib.format.read_magic(head)](head)
  except DAMAGE:
    raise InputError(f'{file.path} does not begin with the header of a NumPy file: if it has only ids, as '
                     'OLMo\'s, it is olmo:') from None
  if dtype not in (layout.UINT16, layout.UINT32) or len(shape) != 1 or not shape[0]:
    raise InputError(f'{file.path} has {dtype.str} of shape {shape}, but a corpus needs uint16 or uint32 in '
                     'one dimension: convert it')
  found = layout.Layout(dtype, head.tell(), shape[0])
  layout.require_size(file, found)
  return found


FORMAT = layout.Format(('*.npy',), _layout, validation='*val*.npy', end_first=True)
