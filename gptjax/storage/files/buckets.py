"""Objects in buckets: `gs://` through gcsfs, `s3://` through s3fs, both over fsspec.

An object appears whole by one put, or not at all; nothing is appended to, renamed or written through an open
file (an exception there would replace the old object by half of the new one). What belongs together is
committed by its last object, a manifest.

A request that fails for a reason that passes (too many requests, a fault of the server, a broken or silent
connection) is repeated, after pauses with jitter, for up to `retry_seconds`. Lists are never cached.
"""

import concurrent.futures
import contextlib
import errno
import logging
import random
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

from gptjax import defaults
from gptjax.errors import Denied, InputError, Unavailable
from gptjax.storage.files import atomic, bounded

PACKAGES = {'gs': ('gcsfs', 'gcs'), 's3': ('s3fs', 's3')}  # scheme: package, extra
CONNECT, SILENT = 20, 30    # seconds for a connection, and without a byte on it, before a request is repeated
SLOWEST = 1 << 16           # bytes/s: slower transfers are repeated
CHUNK = 8 << 20             # bytes of a ranged read of a large object, PARALLEL of which run at a time
REMOVERS = 16  # threads that remove objects
PARALLEL = 4
SMALL, PARALLEL_SMALL = 1 << 16, 32  # bytes of a range up to which more of them are read at a time
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a request is repeated
CREDENTIALS = {'gs': 'see `gcloud auth application-default login`',
               's3': 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE'}
# Codes of S3 for a key that is not valid; their status is that of a missing permission.
WRONG_KEYS = {'InvalidAccessKeyId', 'SignatureDoesNotMatch', 'InvalidToken', 'ExpiredToken'}
NO_CREDENTIALS = {'NoCredentialsError', 'DefaultCredentialsError', 'RefreshError', 'PartialCredentialsError',
                  'TokenRetrievalError'}
CLOCK = re.compile(r'RequestTimeTooSkewed|reasonable timeframe')  # of S3, and of Google
CLIENTS = {'gcsfs', 's3fs', 'botocore', 'aiobotocore'}  # packages whose errors have a status
# Packages whose errors without a status are those of a connection.
NETWORK = {'google', 'aiohttp', 'requests', 'urllib3', 'fsspec', 'botocore', 'aiobotocore'}


class Entry(NamedTuple):
  """Facts about an object, from a list: they change whenever it is replaced.

  size: bytes.
  checksum: of the content: `crc32c:...` (gs), or `etag:...` (s3; of a large object it depends on its upload).
  version: another after each put.
  """
  size: int
  checksum: str
  version: str


class _Settings:
  """Of this process; `configure` sets them."""
  retry_seconds = defaults.get_config().storage.retry_seconds
  on_retry = staticmethod(lambda: None)


def configure(retry_seconds=None, on_retry=None):
  """Set how long requests are repeated, and a function to call before each repetition; None: as it is."""
  if retry_seconds is not None:
    _Settings.retry_seconds = retry_seconds
  if on_retry is not None:
    _Settings.on_retry = staticmethod(on_retry)


def read(url, max_bytes=bounded.MAX_FILE_BYTES):
  """Return the bytes of an object.

  Raises:
    FileNotFoundError: there is none.
    InputError: it has more than `max_bytes` bytes; as for all functions here: no access, no credentials,
      or no answer from the storage for `retry_seconds`.
  """
  def fetch(system):
    try:
      return _run(system, system._cat_file, url.key, start=0, end=max_bytes + 1, n_bytes=max_bytes)
    except Exception as error:
      if _status(error) == 416:  # an empty object has no such range
        return b''
      raise
  content = _repeated(url, fetch)
  if len(content) > max_bytes:
    raise InputError(f'{url} has more than {max_bytes:,} bytes: such a file is not read')
  return content


def read_ranges(url, ranges):
  """Return [bytes of each range (start, stop)] of an object, read concurrently."""
  return read_parts([(url, start, stop) for start, stop in ranges])


def read_parts(parts):
  """Return [bytes of each part (url, start, stop)] of objects in one kind of storage, read concurrently."""
  found = {}
  def fetch(system):
    missing = [number for number in range(len(parts)) if number not in found]
    urls, starts, stops = zip(*(parts[number] for number in missing), strict=True)
    n_bytes = sum(stops) - sum(starts)
    together = PARALLEL if n_bytes > len(missing) * SMALL else PARALLEL_SMALL
    answers = _run(system, system._cat_ranges, [url.key for url in urls], list(starts), list(stops),
                   batch_size=together, on_error='return', n_bytes=n_bytes)
    whole = [isinstance(answer, bytes) and len(answer) == stop - start
             for answer, start, stop in zip(answers, starts, stops, strict=True)]
    found.update({n: answer for n, answer, good in zip(missing, answers, whole, strict=True) if good})
    if not all(whole):
      failed = answers[whole.index(False)]
      raise failed if isinstance(failed, Exception) else ConnectionError(f'only {len(failed):,} bytes came')
  if parts:
    _repeated(parts[0][0], fetch)
  return [found[number] for number in range(len(parts))]


def chunks(url, size):
  """Yield the first `size` bytes of an object, in chunks."""
  for start in range(0, size, CHUNK * PARALLEL):
    stop = min(start + CHUNK * PARALLEL, size)
    yield from read_ranges(url, [(at, min(at + CHUNK, stop)) for at in range(start, stop, CHUNK)])


def download(url, path, size, on_bytes=lambda chunk: None):
  """Write the first `size` bytes of an object to a new local file, durably.

  Args:
    url: of the object.
    path: of the file.
    size: bytes.
    on_bytes: called with each chunk (bytes) in order; what it raises ends the download, without a file.
  """
  with atomic.replacing(path) as file:
    for chunk in chunks(url, size):
      on_bytes(chunk)
      file.write(chunk)


def put(url, content, longest_pause=None):
  """Write or replace an object, by one put.

  Args:
    url: of the object.
    content: bytes, or str, written as UTF-8.
    longest_pause: seconds before a request is repeated, at most; None: LONGEST_PAUSE.
  """
  content = content.encode() if isinstance(content, str) else content
  _written(url, lambda system: _run(system, system._pipe_file, url.key, content, n_bytes=len(content)),
           longest_pause)


def put_file(url, path):
  """Like `put` for a local file of any size."""
  size = Path(path).stat().st_size
  _written(url, lambda system: _run(system, system._put_file, str(path), url.key, n_bytes=size))


def create(url, content):
  """Write an object unless there is one, and return whether this call has written it."""
  content = content.encode() if isinstance(content, str) else content
  def attempt(system):
    try:
      _run(system, system._pipe_file, url.key, content, mode='create')
    except FileExistsError:
      return False
    return True
  while not _written(url, attempt):
    with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
      # If an answer was lost, the repeated request finds the object of the first.
      return read(url, max(len(content), bounded.MAX_FILE_BYTES)) == content
  return True


def _written(url, attempt, longest_pause=None):
  """`_repeated` for a request that writes: 404 means a lost upload, or that there is no such bucket."""
  for last in (False, False, True):
    try:
      return _repeated(url, attempt, longest_pause)
    except FileNotFoundError as error:
      if last:
        raise InputError(f'{url} cannot be written: {no_bucket(url)} ({_reason(error)})') from error


def no_bucket(url):
  """Return the text about a bucket that is not found."""
  return f'there is no bucket {url.key.partition("/")[0]!r}, or it is hidden from this account'


def find(url):
  """Return {name below `url`: Entry} of all objects below it, which may be none.

  Raises:
    InputError: there is no such bucket.
  """
  try:
    found = _repeated(url, lambda system: _run(system, system._find, url.key, detail=True, withdirs=False))
  except FileNotFoundError as error:
    raise InputError(f'{url}: {no_bucket(url)}') from error
  names = {name.removeprefix(f'{url.key}/'): entry for name, entry in found.items()
           if name.startswith(f'{url.key}/') and not name.endswith('/')}
  return {name: _entry(facts) for name, facts in sorted(names.items())}


def names(url):
  """Return the sorted names of the objects and folders directly in `url`; [] if there are none."""
  try:
    found = _repeated(url, lambda system: _run(system, system._ls, url.key, detail=False))
  except FileNotFoundError:
    return []
  return sorted({name.rstrip('/').removeprefix(f'{url.key}/') for name in found} - {url.key, ''})


def entry(url):
  """Return the Entry of an object, or None if there is none."""
  try:
    facts = _repeated(url, lambda system: _run(system, system._info, url.key))
  except FileNotFoundError:
    return None
  return _entry(facts) if facts['type'] == 'file' else None


def remove(url):
  """Remove an object; it need not exist."""
  with contextlib.suppress(FileNotFoundError):
    _repeated(url, lambda system: _run(system, system._rm_file, url.key))


def remove_tree(url, last=()):
  """Remove all objects below `url`, those named in `last` after all others."""
  below = find(url).keys()
  with concurrent.futures.ThreadPoolExecutor(REMOVERS) as pool:
    list(pool.map(lambda name: remove(url / name), sorted(below - set(last))))
  for name in sorted(below & set(last)):
    remove(url / name)


def _entry(facts):
  if 'ETag' in facts:
    tag = facts['ETag'].strip('"')
    return Entry(facts['size'], f'etag:{tag}', f'{tag} {facts.get("LastModified")}')
  return Entry(facts['size'], f'crc32c:{facts.get("crc32c")}', str(facts.get('generation')))


_systems, _renewing = {}, threading.Lock()


def file_system(url):
  """Return the file system of fsspec for the scheme of a Url, without caches of lists."""
  if url.scheme in _systems:
    return _systems[url.scheme]
  package, extra = PACKAGES[url.scheme]
  try:
    system = _gcs() if url.scheme == 'gs' else _s3()
  except ImportError as error:
    raise InputError(f"{url} needs the package {package} ({error}): pip install 'gptjax[{extra}]'") from None
  _systems[url.scheme] = system
  return system


class S3Service(NamedTuple):
  """What s3fs has found in the variables and files of Amazon's clients, for another client.

  endpoint, region: of the service; region may be None.
  credentials: their source, by botocore's name, 'env' for example; None if there are none.
  profile, credentials_file, config_file: where credentials in files are.
  """
  endpoint: str
  region: str | None
  credentials: str | None
  profile: str
  credentials_file: str
  config_file: str


def s3_service(url):
  """Return the S3Service of a Url of `s3://`."""
  def find(system):
    client = system.s3.meta  # which makes the session
    credentials = _run(system, system.session.get_credentials)
    files = [str(Path(system.session.get_config_variable(name)).expanduser())
             for name in ('credentials_file', 'config_file')]
    return S3Service(client.endpoint_url, client.region_name, credentials and credentials.method,
                     system.session.profile or 'default', *files)
  return _repeated(url, find)


def file_system_options(text):
  """Return the options with which fsspec opens a URL as this module does; {} for what is in no bucket."""
  scheme = text.partition('://')[0]
  try:
    return {'gs': _gcs_options, 'gcs': _gcs_options, 's3': _s3_options}.get(scheme, dict)()
  except ImportError:  # fsspec says which package is missing
    return {}


def _gcs():
  import gcsfs
  return gcsfs.GCSFileSystem(**_gcs_options())


def _gcs_options():
  import aiohttp
  logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # it logs each error with a traceback
  logging.getLogger('google.auth').setLevel(logging.ERROR)
  timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENT)
  return {'use_listings_cache': False, 'requests_timeout': timeout}


def _s3():
  import s3fs
  return s3fs.S3FileSystem(**_s3_options())


def _s3_options():
  return {'use_listings_cache': False, 'config_kwargs': {
    'connect_timeout': CONNECT, 'read_timeout': SILENT, 'retries': {'mode': 'standard', 'max_attempts': 3}}}


def _run(system, method, *arguments, n_bytes=0, **options):
  """Run a coroutine of a file system to its end; TimeoutError if it makes no progress."""
  import fsspec.asyn
  return fsspec.asyn.sync(system.loop, method, *arguments, **options,
                          timeout=CONNECT + 4 * SILENT + n_bytes / SLOWEST)


def _repeated(url, attempt, longest_pause=None):
  """attempt(file system), repeated while it fails for a reason that passes."""
  deadline, pause, refreshed = time.monotonic() + _Settings.retry_seconds, FIRST_PAUSE, False
  while True:
    system = file_system(url)
    try:
      return attempt(system)
    except (FileNotFoundError, FileExistsError, InputError):
      raise
    except Exception as error:
      status = _status(error)
      if _expired(error, status) and not refreshed:
        refreshed = True
        _renew(url.scheme, system)
        continue
      if fault := _lasting_fault(url.scheme, error, status):
        raise Denied(f'{url}: {fault}') from error
      if not _passes(error, status):
        if status is None:
          raise
        region = ', and AWS_REGION its region' if url.scheme == 's3' else ''
        raise InputError(f'{url}: the storage refuses the request ({status}, {_reason(error)}): see whether '
                         f'the name of the bucket is right{region}') from error
      if time.monotonic() + pause > deadline:
        raise Unavailable(f'{url}: the storage has not answered for {_Settings.retry_seconds:g} s '
                         f'({_reason(error)}): see whether it can be reached, and start again') from error
    _Settings.on_retry()
    time.sleep(pause * random.uniform(0.5, 1))
    pause = min(2 * pause, longest_pause or LONGEST_PAUSE)


def fault_of(error):
  """Return the class of InputError for an error of a client, gcsfs or s3fs; None for any other error."""
  status = _status(error)
  if _lasting_fault('', error, status):
    return Denied
  from_client = {type(one).__module__.partition('.')[0] for one in _causes(error)} & CLIENTS
  return Unavailable if from_client or _passes(error, None) else None


def _expired(error, status):
  """Whether a new client, which reads the credentials again, may succeed."""
  kinds = {type(one).__name__ for one in _causes(error)}
  return status == 401 or 'RefreshError' in kinds or _code(error) == 'ExpiredToken'


def _renew(scheme, system):
  """Forget the client of a scheme, unless another thread has done so."""
  with _renewing:
    if _systems.get(scheme) is system:
      del _systems[scheme]
      type(system).clear_instance_cache()


def _causes(error):
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _status(error):
  """The HTTP status in an error or its causes; None if there is none."""
  for one in _causes(error):
    answer = getattr(one, 'response', None)
    from_boto = answer.get('ResponseMetadata', {}).get('HTTPStatusCode') if isinstance(answer, dict) else None
    for status in (from_boto, getattr(one, 'code', None), getattr(one, 'status', None)):
      if str(status).isdecimal():
        return int(status)
  return 403 if str(error).startswith('Forbidden') else None


def _code(error):
  """The code of S3 in an error or its causes; '' if there is none."""
  answers = (getattr(one, 'response', None) for one in _causes(error))
  return next((answer['Error'].get('Code', '') for answer in answers
               if isinstance(answer, dict) and isinstance(answer.get('Error'), dict)), '')


def _lasting_fault(scheme, error, status):
  """What a user has to change, or ''."""
  kinds = {type(one).__name__ for one in _causes(error)}
  if 'TransportError' in kinds:  # the server that gives credentials is away
    return ''
  code = _code(error)
  if CLOCK.search(f'{code} {error}'):
    return f'the clock of this machine is wrong ({_reason(error)}): set it'
  if status == 401 or code in WRONG_KEYS or kinds & NO_CREDENTIALS:
    return (f'the credentials are missing, wrong or expired ({_reason(error)}): '
            f'{CREDENTIALS.get(scheme, "renew them")}')
  if status == 403 or isinstance(error, PermissionError):
    return f'access is denied ({_reason(error)}): give the account permission to list, read and write it'
  return ''


def _passes(error, status):
  if status is not None:
    return status in (408, 409, 410, 429) or status >= 500
  if isinstance(error, OSError) and error.errno == errno.EBUSY:  # s3fs: slow down
    return True
  packages = {type(one).__module__.partition('.')[0] for one in _causes(error)}
  return isinstance(error, TimeoutError | ConnectionError) or bool(packages & NETWORK)


def _reason(error):
  return ' '.join(str(error).split())[:200] or type(error).__name__


def repeated(url, attempt):
  """Return attempt(), repeated like a request to the bucket of `url` if it fails for a reason that passes."""
  return _repeated(url, lambda system: attempt())
