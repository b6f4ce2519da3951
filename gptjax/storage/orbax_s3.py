"""Orbax on `s3://`, which it does not support itself: what is changed in it, for paths of `s3://` alone.

TensorStore, with which Orbax writes arrays, has a driver for S3. But Orbax 0.12 takes every path except
`gs://...` for one of a file system. `prepare` therefore changes, once per process, Orbax's private function
`build_kvstore_tspec`, which makes the specification of TensorStore for a path. For `s3://` it is called with
the same path of `gs://`, and the driver in its result is replaced. All other paths go to Orbax's function
unchanged. Orbax's small files go through `bucket_files`, as for `gs://`.

`options` asks Orbax, by a public option, to write in place and then a commit file, as on `gs://`: a
folder in a bucket cannot be renamed.

The private function may change with any minor version, so others than TESTED are refused.

TensorStore's documentation warns that S3 lacks operations that it relies on. A checkpoint does not need them:
each of its databases has one writer, a process, in a folder that `step_folders.begin` has emptied, and no
part of a database is deleted. It is opened and measured when it is complete, and only then does our manifest
make the checkpoint count. That has the checksum of each object, so that what a stray writer changes later is
found as damage.
"""

import functools
import re

import jax

from gptjax.errors import Denied, InputError, Unavailable
from gptjax.storage.files import buckets
from gptjax.storage.files.paths import Url, split_url

SCHEME = 's3'
TESTED = ('0.12',)  # minor versions of Orbax
GCS_DRIVERS = 'gcs', 'gcs_grpc'
AMAZON = re.compile(r'https://s3(\.[a-z0-9-]+)?\.amazonaws\.com')  # TensorStore finds the region of a bucket
# Sources of credentials, as botocore names them: what TensorStore calls them. It has others, but without
# these names it tries them all, prints an error for each that is absent, and goes on without credentials.
CREDENTIALS = {'env': 'environment', 'shared-credentials-file': 'profile', 'config-file': 'profile',
               'assume-role': 'profile', 'assume-role-with-web-identity': 'default',
               'container-role': 'ecs', 'iam-role': 'imds'}
CHUNK = 1 << 30  # bytes
PROBE = 60       # seconds


def check_version(url):
  """Raise InputError if this version of Orbax cannot write checkpoints to `url` and read them there."""
  import orbax.checkpoint as ocp
  if '.'.join(ocp.__version__.split('.')[:2]) not in TESTED or not hasattr(_specs(), 'build_kvstore_tspec'):
    raise InputError(f'{url}: checkpoints on s3:// are tested with orbax-checkpoint {" and ".join(TESTED)}, '
                     f'and this is {ocp.__version__}: install a version that is tested, or use gs:// or a '
                     'file system')


def prepare(url):
  """Let Orbax read and write below a Url of `s3://`; raises InputError if it cannot."""
  check_version(url)
  driver(url)
  _change_orbax()


def probe(url):
  """Raise InputError if TensorStore, which looks for credentials itself, cannot read below `url`."""
  import tensorstore
  bucket, _, key = url.key.partition('/')
  try:
    store = tensorstore.KvStore.open({**driver(url), 'bucket': bucket, 'path': f'{key}/'}).result(PROBE)
    store.read('absent').result(PROBE)
  except TimeoutError as error:
    raise Unavailable(f'{url}: TensorStore has had no answer for {PROBE} s') from error
  except ValueError as error:
    raise Denied(f'{url} cannot be read by TensorStore, which writes the arrays of checkpoints: '
                 f'{" ".join(str(error).split())[:300]}') from error


def options():
  """Options of a checkpointer for a folder on `s3://`."""
  import orbax.checkpoint as ocp
  return {'atomicity_options': ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)}


def save_args(tree):
  """Orbax's arguments for the arrays of a tree: a value is one object, of which S3 takes 5 GB."""
  import orbax.checkpoint as ocp
  return jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK), tree)


def driver(url):
  """Return the specification of TensorStore's driver for a Url, without `bucket` and `path`, as s3fs has it.

  TensorStore alone would not read the address of the service, nor AWS_PROFILE.
  """
  service = buckets.s3_service(url)
  kind = CREDENTIALS.get(service.credentials)
  if kind is None:
    raise InputError(f'{url}: checkpoints on s3:// cannot use credentials of the kind '
                     f'{service.credentials or "none"}: put them into AWS_ACCESS_KEY_ID, '
                     'AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN '
                     '(`aws configure export-credentials --format env`)')
  found = {'driver': SCHEME, 'aws_credentials': {'type': kind}}
  if kind == 'profile':
    found['aws_credentials'] |= {name: getattr(service, name) for name in
                                 ('profile', 'credentials_file', 'config_file')}
  if not AMAZON.fullmatch(service.endpoint):
    found |= {'endpoint': service.endpoint, 'aws_region': service.region or 'us-east-1'}
  return found


def _specs():
  """The module of Orbax that makes the specifications of TensorStore; None if it is not there."""
  try:
    from orbax.checkpoint._src.serialization import tensorstore_utils
  except ImportError:
    return None
  return tensorstore_utils


@functools.cache
def _change_orbax():
  module = _specs()
  build = module.build_kvstore_tspec

  @functools.wraps(build)
  def build_kvstore_tspec(directory, *arguments, **named):
    if not str(directory).startswith(f'{SCHEME}://'):
      return build(directory, *arguments, **named)
    as_gcs = build(f'gs{str(directory).removeprefix(SCHEME)}', *arguments, **named)
    return _with_driver(as_gcs, driver(Url(*split_url(str(directory)))))

  module.build_kvstore_tspec = build_kvstore_tspec


def _with_driver(spec, replacement):
  """A specification of TensorStore in which `replacement` is the driver of all that is in a bucket."""
  if isinstance(spec, list):
    return [_with_driver(part, replacement) for part in spec]
  if not isinstance(spec, dict):
    return spec
  spec = {name: _with_driver(part, replacement) for name, part in spec.items()}
  return spec | replacement if spec.get('driver') in GCS_DRIVERS else spec
