"""Paths of flags, config fields and arguments, made absolute where they are read.

Which function to use:
    local     a path that must be on this machine, as text: a URL is an error
    anywhere  a path that may be in a bucket, as text: for flags and config fields, which stay text
    location  the same as a Path or a Url: where files are read or written
    parsed    like `location`, but a path of this machine stays as it is: no `~`, and relative if it was; for
              names in recorded settings, and for functions of the library, as `open` takes them
"""

import argparse
import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gptjax.errors import InputError

URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')

BUCKETS = 'gs', 's3'  # schemes of buckets
# Other spellings of these schemes. A folder of this machine with such a name is ./gs:/...
SPELLINGS = {'gs': 'gs', 'gcs': 'gs', 's3': 's3', 's3a': 's3', 's3n': 's3'}
MISTYPED = re.compile(rf'({"|".join(SPELLINGS)}):/', re.IGNORECASE)


class Url(NamedTuple):
  """The name of an object or a folder in a bucket. It has the part of `pathlib.Path` that names need.

  It is not an `os.PathLike`: opening it as a file of this machine is a TypeError.
  """
  scheme: str
  key: str   # BUCKET/NAME, without a slash at the end

  def __truediv__(self, name):
    return Url(self.scheme, f'{self.key}/{name}')

  def __str__(self):
    return f'{self.scheme}://{self.key}'

  @property
  def name(self):
    return self.key.rpartition('/')[2]

  @property
  def parent(self):
    return Url(self.scheme, self.key.rpartition('/')[0])


def location(path, what='path'):
  """Return a Path of this machine (see `local`), or the Url of `gs://BUCKET/NAME` or `s3://BUCKET/NAME`.

  Raises:
    InputError: as for `local`; another scheme, or no bucket.
  """
  if isinstance(path, Url):
    return path
  if (mistyped := MISTYPED.match(str(path))) and not str(path).startswith(tuple(f'{s}://' for s in BUCKETS)):
    raise InputError(f'{what} {path}: a bucket is written {SPELLINGS[mistyped[1].lower()]}://BUCKET/NAME')
  scheme, separator, rest = str(path).partition('://')
  if not separator or scheme not in BUCKETS:
    return Path(local(path, what))
  if not rest.isprintable():  # TensorStore omits tabs and line ends, so parts of a checkpoint go elsewhere
    raise InputError(f'{what} {path} has a character that cannot be printed: choose another name')
  parts = rest.rstrip('/').split('/')
  if not all(parts) or {'.', '..'} & set(parts) or set(rest) & set('?#*'):
    raise InputError(f'{what} {path} is not a name in a bucket: write {scheme}://BUCKET/NAME')
  return Url(scheme, rest.rstrip('/'))


def parsed(path):
  """Return `location` of a URL, and another path as it is, as a Path."""
  return location(path) if URL.match(str(path)) else Path(path)


def split_url(text):
  """Return (scheme, rest) of a URL, and ('', text) of another path."""
  scheme, separator, rest = text.partition('://')
  return (scheme, rest) if separator and URL.match(text) else ('', text)


def anywhere(path, what='path'):
  """Return `location` as text; '' stays ''."""
  return str(location(path, what)) if str(path) else ''


def local(path, what='path'):
  """Return an absolute path on this machine.

  `~` becomes the home folder, a relative path starts at the current folder, repeated slashes become one. `..`
  is kept, because after a symbolic link it is not the parent in the text.

  Args:
    path: str or Path; '' stays ''.
    what: name of the path in messages, '--workdir' for example.

  Returns:
    str.

  Raises:
    InputError: a URL, an unknown user after `~`, or a relative path where the current folder is gone.
  """
  text = str(path)
  if not text:
    return ''
  if URL.match(text):
    raise InputError(f'{what} {text}: URLs are not supported here: use a folder or file of this machine')
  try:
    absolute = Path.cwd() / Path(text).expanduser()
  except RuntimeError:
    raise InputError(f'{what} {text}: no such user: write the path without ~') from None
  except OSError as error:
    raise InputError(f'{what} {text} is relative, and the current folder cannot be read ({error.strerror}): '
                     'change to another one') from None
  return '/' + str(absolute).lstrip('/')


def below(folder, name):
  """Return the path of a file whose name is in a manifest of this folder.

  Raises:
    InputError: the name is outside the folder, or invalid.
  """
  parts = PurePosixPath(name).parts if isinstance(name, str) and '\0' not in name else ()
  if not parts or parts[0] == '/' or '..' in parts:
    raise InputError(f'{folder} refers to the file {name!r}, which is not in that folder: get another copy')
  return folder / name


def expanded(spec, kinds):
  """Return a spec `KIND:PATH`, or a path alone, with `~` expanded.

  Args:
    spec: str, like `jsonl:~/books/*.jsonl:text`, `gpt2:DIR`, or a folder.
    kinds: the kinds that are followed by a path.
  """
  kind, colon, path = spec.partition(':')
  if colon:
    return f'{kind}:{os.path.expanduser(path)}' if kind in kinds else spec
  return os.path.expanduser(spec)


def flag(text, absolute=local):
  """`local` as the `type` of an argparse flag."""
  try:
    return absolute(text)
  except InputError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def bucket_flag(text):
  """`anywhere` as the `type` of an argparse flag."""
  return flag(text, anywhere)
