"""Reads files of PyTorch for `gptjax import`, as tensors and plain values: nothing in them is run.

Such a file is a pickle. `torch.load(weights_only=True)` builds tensors and plain values only, and refuses all
else by its name. In versions before 2.6 it could still run code (CVE-2025-32434), so these are not used.
"""

import functools
import re
import warnings
import zipfile

from gptjax.errors import InputError
from gptjax.pretrained import layout
from gptjax.pretrained.huggingface import BUFFERS, HEAD
from gptjax.storage.files import bounded, lfs, local

NEEDED = 2, 6  # version of PyTorch
INSTALL = "pip install 'gptjax[import]'"
ZIP = b'PK\x03\x04'  # how a file begins, since PyTorch 1.6
# What weights_only=True names in its messages: the class or function of an object that is not a plain value.
OBJECT = re.compile(r'GLOBAL ([\w.]+)')
# Prefixes that torch.nn.parallel and torch.compile add, also to the names of single layers.
WRAPPERS = re.compile(r'(?:^|(?<=\.))(?:_orig_mod|module)\.')
TYPES = {'torch.float32': 'F32', 'torch.float16': 'F16', 'torch.bfloat16': 'BF16'}


def read(path):
  """Return the value in a file that `torch.save` wrote.

  Its tensors are mapped, not read, unless the file has the format before PyTorch 1.6.

  Args:
    path: Path of this machine.

  Raises:
    InputError: PyTorch is not installed or too old; the file is damaged, or has other objects than tensors
      and plain values.
  """
  torch = _torch(path)
  lfs.refuse_pointer(path)
  is_zip = local.size(path) >= len(ZIP) and local.part(path, 0, len(ZIP)) == ZIP
  if is_zip:
    _refuse_compressed(path)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # deprecations within PyTorch
      return torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
  except MemoryError:
    raise
  except Exception as error:  # of any type, if the file is damaged
    if found := OBJECT.search(str(error)):
      raise InputError(f'{path} has an object of {found[1]}, and reading objects can run code: save it again '
                       'with tensors and plain values only, where you trust it') from None
    # PyTorch's words on a pickle advise to read it without this protection.
    known = isinstance(error, (OSError, RuntimeError)) and 'weights_only' not in str(error)
    details = f' ({" ".join(str(error).split())[:200]})' if known else ''
    raise InputError(f'{path} is not a file of torch.save, or is damaged or cut short: get another '
                     f'copy{details}') from None


def _torch(path):
  """Return the module of PyTorch; InputError unless it is installed, in a version that is safe."""
  try:
    import torch
  except ImportError as error:
    raise InputError(f'reading {path} needs PyTorch: {INSTALL} ({error})') from None
  version = tuple(map(int, re.findall(r'\d+', torch.__version__)[:2]))
  if version < NEEDED:
    raise InputError(f'PyTorch {torch.__version__} can run code from {path} (CVE-2025-32434): {INSTALL} '
                     f'installs {NEEDED[0]}.{NEEDED[1]} or later')
  return torch


def _refuse_compressed(path):
  """Raise InputError if a part of a zip file is compressed, unlike tensors: it could fill the memory."""
  try:
    with zipfile.ZipFile(path) as file:
      parts = file.infolist()
  except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
    raise InputError(f'{path} is damaged or cut short: get another copy ({error})') from None
  for part in parts:
    pickle = part.filename.endswith('.pkl')
    if part.compress_type != zipfile.ZIP_STORED or (pickle and part.file_size > bounded.MAX_FILE_BYTES):
      raise InputError(f'{path} is not tensors of torch.save: {part.filename} in it is compressed or has '
                       f'{part.file_size:,} bytes; save model.state_dict() again')


def entries(path, state):
  """Return [(name, type, StoredTensor)] of a dict of tensors, without the prefixes of wrappers.

  Args:
    path: of its file, for messages.
    state: the dict.

  Raises:
    InputError: a value is not a tensor that is stored whole.
  """
  import torch
  if not isinstance(state, dict):
    raise InputError(f'{path} has a {type(state).__name__}, not a dict of tensors')
  found, total = [], 0
  for key, tensor in state.items():
    if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
      raise InputError(f'{path}: {str(key)[:80]!r} is a {type(tensor).__name__}, not a tensor: give a file '
                       'of model.state_dict()')
    if tensor.layout != torch.strided or tensor.device.type != 'cpu':
      raise InputError(f'{path}: the tensor {key} is {tensor.layout} on {tensor.device}, without values of '
                       'its own: save it as a plain tensor')
    name = WRAPPERS.sub('', key)
    if not BUFFERS.fullmatch(name) and name != HEAD:
      total += tensor.nbytes
    # StoredTensor.read: a block of the tensor as float32, which bfloat16 and float16 become exactly.
    found.append((name, TYPES.get(str(tensor.dtype), str(tensor.dtype)), layout.StoredTensor(
      tuple(tensor.shape), functools.partial(_block, tensor.detach()))))
  if total > local.size(path):  # else a small file could fill the memory
    raise InputError(f'{path}: its tensors have {total:,} bytes, but the file only {local.size(path):,}: '
                     'save the tensors that share memory as copies')
  return found


def _block(tensor, index):
  return tensor[index].float().numpy()
