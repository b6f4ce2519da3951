"""A list of URLs, by which pages of web archives are chosen.

Each process has the first 8 bytes of the keys of all URLs in memory. `webtext_links` writes them to files
`keys-*.bin`; those of a text file are computed by each process, which takes minutes for tens of millions.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from gptjax.data.links import urls
from gptjax.data.sources import file_access
from gptjax.data.sources.decompression import DamagedFile
from gptjax.errors import InputError
from gptjax.storage.files import paths

KEY = np.dtype('<u8')
KEYS_SUFFIX = '.bin'
MAX_LINE = 4 * urls.MAX_WRITTEN  # bytes


class UrlList(NamedTuple):
  """The URLs in text files, one per line, or in files of keys.

  It can be pickled for other processes, which read the files again.

  patterns: tuple of files or globs.
  digest: of the keys.
  """
  patterns: tuple
  digest: str

  def has(self, url):
    """Return whether the list has a canonical URL, up to what `urls.key` ignores."""
    if self not in _known and read(self.patterns) != self:
      raise InputError(f'--urls={self.patterns[0]} has changed meanwhile: run the command again')
    keys, key = _known[self], _numbers([urls.key(url)])[0]
    at = np.searchsorted(keys, key)
    return bool(at < len(keys) and keys[at] == key)


_known = {}  # {UrlList: uint64[n], the sorted keys}, of the last one that was read


def read_for(patterns, units):
  """Return `read(patterns)`; InputError if no unit is a web archive, of which they could choose pages."""
  if patterns and not any(unit.kind == 'warc' for unit in units):
    raise InputError(f'--urls={patterns[0]} chooses pages of web archives: give --source=warc:GLOB')
  return read(patterns)


def read(patterns):
  """Return the UrlList of files or globs; None if there are none.

  Raises:
    InputError: no file has such a name, or a line is not the URL of a web page.
  """
  if not patterns:
    return None
  keys = np.unique(np.concatenate([_keys_of(path) for pattern in patterns for path in _files(pattern)]))
  digest = hashlib.sha256(keys.tobytes()).hexdigest()
  made = UrlList(tuple(patterns), digest)
  _known.clear()
  _known[made] = keys
  return made


def _files(pattern):
  files = file_access.find_files(paths.expanded(pattern, ()))
  if not files:
    raise InputError(f'--urls={pattern}: no file has this name')
  return [path for path, _ in files]


def packed(keys):
  """Return the content of a file of keys.

  Args:
    keys: iterable of the results of `urls.key`.
  """
  return _numbers(keys).tobytes()


def _numbers(keys):
  """Return KEY[n]: the first 8 bytes of each key as a number, so that numbers are ordered as the keys are."""
  return np.fromiter((int.from_bytes(key[:8]) for key in keys), KEY)


def _keys_of(path):
  """Return KEY[n]: the keys in a file."""
  if not path.endswith(KEYS_SUFFIX):
    return _numbers(map(urls.key, _lines(path)))
  with file_access.open_bytes(path) as file:
    content = file.read()
  if len(content) % KEY.itemsize:
    raise InputError(f'--urls={path} has {len(content):,} bytes, which is not a list of keys: give the '
                     'keys-*.bin of webtext-links, or text files with another ending')
  return np.frombuffer(content, KEY)


def _lines(path):
  """Yield the canonical URLs of a text file."""
  number = 0
  with file_access.open_bytes(path) as file:
    try:
      while line := file.readline(MAX_LINE):
        number += 1
        text = line.decode('utf-8', 'replace').strip()
        if text:
          url = urls.canonical(text) if len(line) < MAX_LINE else ''
          if not url:
            raise InputError(f'{path}:{number}: {text[:100]!r} is not the URL of a web page: remove the line')
          yield url
    except DamagedFile as error:
      raise InputError(f'{path}: after line {number:,}: {error.args[0]}: copy it again') from None
