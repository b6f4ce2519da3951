"""Ids without a header, as OLMo's: files to be memory-mapped, whatever their names end with.

https://github.com/allenai/OLMo, olmo/data/memmap_dataset.py. End-of-text follows each document. Nothing in
the files says which dtype they have: without `--dtype` it is uint16 if the tokenizer has at most 65,536
entries, else uint32, as in OLMo-core.
"""

import numpy as np

from gptjax.data.corpus import tree
from gptjax.data.foreign import layout, npy
from gptjax.errors import InputError


def _layout(file, options):
  if file.head(len(npy.MAGIC)) == npy.MAGIC:
    raise InputError(f'{file.path} begins with the header of a NumPy file, it has more than ids: it is npy:')
  dtype = np.dtype(options.dtype) if options.dtype else tree.id_dtype(options.n_vocab)
  advice = '' if options.dtype else 'give --dtype=uint32, or --dtype=uint16 if they are'
  return layout.headerless(file, dtype, advice)


FORMAT = layout.Format(('*.bin', '*.npy'), _layout, has_dtype=True)
OLMO = FORMAT._replace(names=('*.npy',))
