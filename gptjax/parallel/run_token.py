"""The token of a run: a secret that its processes share, with which they authenticate at the rendezvous.

Launchers set GPTJAX_RUN_TOKEN in all processes. Without it, process 0 writes a random token into the workdir
if that is on a file system that all processes share; anyone who can write there can change the run anyway. If
the machines share no file system, or the workdir is in a bucket, there is no token, and a warning is printed.

The token itself is never sent: each side sends a nonce, and an HMAC of both nonces proves that it has the
token.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.storage.files import atomic, paths

VARIABLE = 'GPTJAX_RUN_TOKEN'
MIN_LENGTH = 16  # characters: a shorter token could be found by brute force from a recorded proof
GENERATE_COMMAND = 'openssl rand -hex 32'
FILE = re.compile(r'\.rendezvous-[0-9a-f]{32}')
STALE_SECONDS = 3600  # seconds after which a token file is assumed to be left over from a killed process
# Network file systems, as named in /proc/self/mounts.
SHARED_FILE_SYSTEMS = (
  'nfs', 'nfs4', 'lustre', 'gpfs', 'ceph', 'beegfs', 'cifs', 'smb3', 'afs', 'glusterfs', 'wekafs', 'orangefs',
  'ocfs2', 'gfs2', 'fuse.gcsfuse', 'fuse.sshfs', 'fuse.s3fs', 'fuse.juicefs', 'fuse.glusterfs',
  'fuse.ceph-fuse', 'fuse.mountpoint-s3', 'fuse.rclone', 'fuse.blobfuse2')
MOUNTS = '/proc/self/mounts'


class Token(NamedTuple):
  """The token that process 0 requires of the others.

  key: the secret; empty: there is none.
  source: VARIABLE, the name of the file in the workdir, or ''.
  """
  key: bytes
  source: str


NO_TOKEN = Token(b'', '')


def nonce():
  """Return a random number that is used once, as text."""
  return secrets.token_hex(16)


def proof(key, role, *facts):
  """Return the proof (hex) that the sender has the token.

  Args:
    key: bytes of the token.
    role: of the sender, so that the proof of one side is not valid for the other.
    facts: JSON values that both sides know, including both nonces.
  """
  return hmac.new(key, json.dumps([role, *facts]).encode(), hashlib.sha256).hexdigest()


def verify_proof(received, key, role, *facts):
  """Whether a received value is the correct proof."""
  expected = proof(key, role, *facts).encode()
  return isinstance(received, str) and hmac.compare_digest(received.encode(errors='replace'), expected)


def from_environment():
  """Return the token in GPTJAX_RUN_TOKEN, bytes; empty if it is not set (InputError if it is too short)."""
  text = os.environ.get(VARIABLE, '').strip()
  if text and len(text) < MIN_LENGTH:
    raise InputError(f'{VARIABLE} has {len(text)} characters, and must have {MIN_LENGTH} or more: '
                     f'`{GENERATE_COMMAND}` generates one')
  return os.fsencode(text)


@contextlib.contextmanager
def process_0_token(workdir, one_machine):
  """Context manager that yields the Token of process 0; a file that it writes is removed at the end.

  Args:
    workdir: of the run, may not exist yet; '' or None if the run has none. In a bucket no file is written.
    one_machine: whether all processes are known to be on this machine.
  """
  key = from_environment()
  if key:
    yield Token(key, VARIABLE)
    return
  if not workdir or paths.URL.match(str(workdir)) or not (one_machine or on_shared_file_system(workdir)):
    yield NO_TOKEN
    return
  missing_folders = [folder for folder in (Path(workdir), *Path(workdir).parents) if not folder.exists()]
  path = Path(workdir) / f'.rendezvous-{nonce()}'
  try:
    try:
      token = _write_token_file(path)
    except OSError:  # reported later, when the workdir is created
      token = NO_TOKEN
    yield token
  finally:
    with contextlib.suppress(OSError):
      path.unlink(missing_ok=True)
      for folder in missing_folders:  # rmdir fails on the first that is not empty
        folder.rmdir()


def key_for_process_0(source, workdir):
  """Return the key with which a process authenticates to process 0.

  Args:
    source: of the Token of process 0, as received.
    workdir: of the run.

  Returns:
    bytes, empty if process 0 requires no token; None: this process does not see the token's file (yet).

  Raises:
    InputError: GPTJAX_RUN_TOKEN is set in only one of the two processes.
  """
  key = from_environment()
  if source == VARIABLE and not key:
    raise InputError(f'process 0 was started with {VARIABLE}, this process was not: set it to the same '
                     'value in all processes')
  if source != VARIABLE and key:
    raise InputError(f'this process was started with {VARIABLE}, process 0 was not: set it to the same '
                     'value in all processes')
  if not isinstance(source, str) or not FILE.fullmatch(source):
    return key
  try:
    descriptor = os.open(Path(workdir or '.') / source, os.O_RDONLY | os.O_NOFOLLOW)
  except OSError:
    return None
  with open(descriptor, 'rb') as file:
    return file.read(256) or None


def on_shared_file_system(folder):
  """Whether a folder, or its nearest existing parent, is on a file system that other machines see."""
  folder = os.path.realpath(folder)
  try:
    mounts = [line.split() for line in Path(MOUNTS).read_text(errors='surrogateescape').splitlines()]
  except OSError:  # not Linux
    return False
  # Of two mounts at one place, the later one hides the earlier.
  best = max((fields for fields in reversed(mounts) if _contains(_unescaped(fields[1]), folder)),
             key=lambda fields: len(_unescaped(fields[1])), default=('', '', ''))
  return best[2] in SHARED_FILE_SYSTEMS


def _contains(mount, folder):
  return folder == mount or folder.startswith(mount.rstrip('/') + '/')


def _unescaped(text):
  return re.sub(r'\\([0-7]{3})', lambda match: chr(int(match[1], 8)), text)


def _write_token_file(path):
  """Write a random Token to a file that only this user can read, and remove stale ones."""
  atomic.make_folders(path.parent)
  key = secrets.token_hex(32).encode()
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
  with open(descriptor, 'wb') as file:
    file.write(key)
    file.flush()
    os.fsync(descriptor)
    now = os.fstat(descriptor).st_mtime  # by the clock of the disk
  for old in path.parent.glob('.rendezvous-*'):
    with contextlib.suppress(OSError):
      if FILE.fullmatch(old.name) and now - old.lstat().st_mtime > STALE_SECONDS:
        old.unlink()
  return Token(key, path.name)
