"""What `gptjax doctor` says of buckets: package, credentials, and whether the service answers."""

import os
import urllib.error
import urllib.request
from importlib import metadata

from gptjax.storage.files.buckets import PACKAGES
from gptjax.text.redacted import redacted

SECONDS = 5  # limit for an answer


def describe(scheme):
  """Return (text, whether buckets can be used) for 'gs' or 's3'."""
  package, extra = PACKAGES[scheme]
  try:
    version = metadata.version(package)
  except metadata.PackageNotFoundError:
    return f"{package} is not installed: pip install 'gptjax[{extra}]'", False
  identity = _google_identity() if scheme == 'gs' else _amazon_identity()
  endpoint = _endpoint(scheme)
  fault = _fault(endpoint)
  reached = f'{redacted(endpoint)} {f"cannot be reached ({fault})" if fault else "answers"}'
  return f'{package} {version}; {identity or "no credentials found"}; {reached}', bool(identity and not fault)


def _endpoint(scheme):
  if scheme == 'gs':
    return os.environ.get('STORAGE_EMULATOR_HOST') or 'https://storage.googleapis.com'
  named = [os.environ.get(name) for name in ('AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL')]
  region = os.environ.get('AWS_REGION') or os.environ.get('AWS_DEFAULT_REGION')
  return next(filter(None, named), f'https://s3.{f"{region}." if region else ""}amazonaws.com')


def _fault(endpoint):
  """Return why a service gives no answer; '' if it does, whatever it answers."""
  try:
    urllib.request.urlopen(endpoint, timeout=SECONDS).close()
  except urllib.error.HTTPError:  # to a request without credentials
    return ''
  except (OSError, ValueError) as error:
    return ' '.join(str(getattr(error, 'reason', error)).split())
  return ''


def _google_identity():
  if os.environ.get('STORAGE_EMULATOR_HOST'):
    return 'no credentials are needed'
  import google.auth
  import google.auth.exceptions
  try:
    credentials, project = google.auth.default()
  except google.auth.exceptions.DefaultCredentialsError:
    return ''
  kind = type(credentials).__module__.rpartition('.')[2]
  account = getattr(credentials, 'service_account_email', '') or kind
  return f'credentials of {account}' + (f', project {project}' if project else '')


def _amazon_identity():
  import botocore.session
  credentials = botocore.session.get_session().get_credentials()
  return f'credentials of {credentials.method}' if credentials else ''
