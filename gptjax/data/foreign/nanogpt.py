"""nanoGPT's `train.bin` and `val.bin`: ids, nothing else.

https://github.com/karpathy/nanoGPT, data/openwebtext/prepare.py: end-of-text follows each document.
"""

from gptjax.data.foreign import layout

DTYPE, TRAIN, VALIDATION = layout.UINT16, 'train.bin', 'val.bin'


def _layout(file, options):
  del options
  return layout.headerless(file, DTYPE)


FORMAT = layout.Format((TRAIN, VALIDATION), _layout, validation=VALIDATION)
