"""The token of a run: a secret that its processes share, by which they know each other at the rendezvous.

Launchers set GPTJAX_RUN_TOKEN in all processes. Without it, process 0 writes a token of its own into the
workdir, if that lies on a disk that all see; whoever can write there could change the run anyway. On the
disks of separate machines there is none, and one line warns.

The token itself never crosses the network: each side sends a number drawn at random, and proves by an HMAC of
both numbers that it has the token.
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
from gptjax.files import atomic

VARIABLE = 'GPTJAX_RUN_TOKEN'
MIN_LENGTH = 16  # characters: a shorter one could be guessed from a proof
MAKE_COMMAND = 'openssl rand -hex 32'
FILE = re.compile(r'\.rendezvous-[0-9a-f]{32}')
STALE_SECONDS = 3600  # seconds after which a file was left behind by a process that was killed
# File systems that several machines see, as /proc/self/mounts names them.
SHARED_FILE_SYSTEMS = (
  'nfs', 'nfs4', 'lustre', 'gpfs', 'ceph', 'beegfs', 'cifs', 'smb3', 'afs', 'glusterfs', 'wekafs', 'orangefs',
  'ocfs2', 'gfs2', 'fuse.gcsfuse', 'fuse.sshfs', 'fuse.s3fs', 'fuse.juicefs', 'fuse.glusterfs',
  'fuse.ceph-fuse', 'fuse.mountpoint-s3', 'fuse.rclone', 'fuse.blobfuse2')
MOUNTS = '/proc/self/mounts'


class Token(NamedTuple):
  """What process 0 asks of the others.

  key: the secret; empty: there is none.
  source: VARIABLE, the name of the file in the workdir, or ''.
  """
  key: bytes
  source: str


NO_TOKEN = Token(b'', '')


def nonce():
  """A number that is used once, as text."""
  return secrets.token_hex(16)


def proof(key, role, *facts):
  """The proof (hex) that the sender has the token.

  Args:
    key: bytes of the token.
    role: whose proof it is: that of one side must be of no use to the other.
    facts: what both sides know, their nonces among it; JSON.
  """
  return hmac.new(key, json.dumps([role, *facts]).encode(), hashlib.sha256).hexdigest()


def is_proof(found, key, role, *facts):
  """Whether a proof that was received is right."""
  return isinstance(found, str) and hmac.compare_digest(found.encode(), proof(key, role, *facts).encode())


def from_environment():
  """The token in GPTJAX_RUN_TOKEN, bytes; empty if it is not set (InputError if it is too short)."""
  text = os.environ.get(VARIABLE, '').strip()
  if text and len(text) < MIN_LENGTH:
    raise InputError(f'{VARIABLE} has {len(text)} characters, and must have {MIN_LENGTH} or more: '
                     f'`{MAKE_COMMAND}` makes one')
  return text.encode()


@contextlib.contextmanager
def process_0_token(workdir, one_machine):
  """The Token that process 0 asks for; what it writes for that is removed at the end.

  Args:
    workdir: of the run, which need not exist; '' or None: there is none.
    one_machine: whether all processes are known to be on this machine.
  """
  key = from_environment()
  if key:
    yield Token(key, VARIABLE)
    return
  if not workdir or not (one_machine or on_shared_disk(workdir)):
    yield NO_TOKEN
    return
  path, created = None, [folder for folder in (Path(workdir), *Path(workdir).parents) if not folder.exists()]
  try:
    try:
      path, token = _write(Path(workdir))
    except OSError:  # why will be said where the workdir is made
      token = NO_TOKEN
    yield token
  finally:
    with contextlib.suppress(OSError):
      if path:
        path.unlink()
      for folder in created:  # as far as they are empty
        folder.rmdir()


def key_for_process_0(source, workdir):
  """The key by which another process is to prove itself.

  Args:
    source: of the Token of process 0, as received.
    workdir: of the run.

  Returns:
    bytes, empty where process 0 asks for none; None: its file is not here (yet).

  Raises:
    InputError: GPTJAX_RUN_TOKEN is set here alone, or there alone.
  """
  key = from_environment()
  if source == VARIABLE and not key:
    raise InputError(f'process 0 was started with {VARIABLE}, this process was not: give all the same')
  if source != VARIABLE and key:
    raise InputError(f'this process was started with {VARIABLE}, process 0 was not: give all the same')
  if not isinstance(source, str) or not FILE.fullmatch(source):
    return key
  try:
    descriptor = os.open(Path(workdir or '.') / source, os.O_RDONLY | os.O_NOFOLLOW)
  except OSError:
    return None
  with open(descriptor, 'rb') as file:
    return file.read(256) or None


def on_shared_disk(folder):
  """Whether a folder, or the nearest that exists above it, lies on a file system that other machines see."""
  folder = os.path.realpath(folder)
  try:
    mounts = [line.split() for line in Path(MOUNTS).read_text().splitlines()]
  except OSError:  # not Linux
    return False
  # Of two at one place, the later one covers the other.
  best = max((fields for fields in reversed(mounts) if _holds(_unescaped(fields[1]), folder)),
             key=lambda fields: len(_unescaped(fields[1])), default=('', '', ''))
  return best[2] in SHARED_FILE_SYSTEMS


def _holds(mount, folder):
  return folder == mount or folder.startswith(mount.rstrip('/') + '/')


def _unescaped(text):
  return re.sub(r'\\([0-7]{3})', lambda found: chr(int(found[1], 8)), text)


def _write(workdir):
  """(path, Token) of a new file that this user alone can read; removes those that were left behind."""
  atomic.make_folders(workdir)
  key, path = secrets.token_hex(32).encode(), workdir / f'.rendezvous-{nonce()}'
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
  with open(descriptor, 'wb') as file:
    file.write(key)
    file.flush()
    os.fsync(descriptor)
    now = os.fstat(descriptor).st_mtime  # by the clock of the disk
  for other in workdir.glob('.rendezvous-*'):
    with contextlib.suppress(OSError):
      if FILE.fullmatch(other.name) and now - other.lstat().st_mtime > STALE_SECONDS:
        other.unlink()
  return path, Token(key, path.name)
