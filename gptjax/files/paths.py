"""Paths as users write them, made absolute once, where they enter: flags, config fields, arguments."""

import argparse
import os
import re
from pathlib import Path, PurePosixPath

from gptjax.errors import InputError

URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


def local(path, what='path'):
  """An absolute path on this machine's disks.

  `~` becomes the home folder, a relative path starts at the current folder, repeated slashes become one.
  `..` stays: behind a symbolic link, it is not the folder that the text suggests.

  Args:
    path: str or Path; '' stays ''.
    what: how messages call it, '--workdir' for example.

  Returns:
    str.

  Raises:
    InputError: a URL, an unknown user after `~`, or a relative path where the current folder is gone.
  """
  text = str(path)
  if not text:
    return ''
  if URL.match(text):
    raise InputError(f'{what} {text}: URLs are not supported here: name a folder or file of this machine')
  try:
    absolute = Path.cwd() / Path(text).expanduser()
  except RuntimeError:
    raise InputError(f'{what} {text}: no such user: write the path without ~') from None
  except OSError as error:
    raise InputError(f'{what} {text} is relative, and the current folder cannot be read ({error.strerror}): '
                     'change to another one') from None
  return '/' + str(absolute).lstrip('/')


def below(folder, name):
  """The path of a file that a manifest in this folder names.

  Raises:
    InputError: the name leads out of the folder, or is none.
  """
  parts = PurePosixPath(name).parts if isinstance(name, str) and '\0' not in name else ()
  if not parts or parts[0] == '/' or '..' in parts:
    raise InputError(f'{folder} names the file {name!r}, which is not in that folder: get it from elsewhere')
  return Path(folder) / name


def expanded(spec, kinds):
  """A spec `KIND:PATH`, or a path alone, with `~` expanded.

  Args:
    spec: str, like `jsonl:~/books/*.jsonl:text`, `gpt2:DIR`, or a folder.
    kinds: those after which a path stands.
  """
  kind, colon, path = spec.partition(':')
  if colon:
    return f'{kind}:{os.path.expanduser(path)}' if kind in kinds else spec
  return os.path.expanduser(spec)


def flag(text):
  """`local` as the `type` of an argparse flag."""
  try:
    return local(text)
  except InputError as error:
    raise argparse.ArgumentTypeError(str(error)) from None
