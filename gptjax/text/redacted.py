"""Removes credentials from URLs: passwords, signatures, tokens and keys.

Sources are recorded and shown in this form. Two presigned URLs of one file have the same form, so the digests
that decide whether work can be resumed are computed from it.
"""

import re
from urllib.parse import quote, unquote

_URL = re.compile(r'://\S+')
# `USER@` or `USER:PASSWORD@` after `://`; or `KEY:SECRET@`, because secret keys of S3 may contain slashes.
# Then `HOST:PORT/` is not a user.
_USER = re.compile(r'(?<=://)(?:[^\s/?#]*@|[^\s/@:\[]*:(?!\d+[/?#])(?:(?!://)[^\s@?#])*@)')
_SECRET = re.compile(
  r'^x-(amz|goog|ms|oss|cos|obs)-|(^|[-_])key$|^key-pair-id$|access(key)?id$|(api|access|secret)[-_]?key|'
  r'^policy$|^sig$|^expires$|signature|credential|secret|token($|[-_])|passw|pwd$|^pw$|^jwt$|(^|[-_])auth($|[-_]|oriz)',
  re.IGNORECASE)
# The other parameters of an Azure signature, which count only together with `sig`.
_AZURE = {'sv', 'st', 'se', 'sr', 'sp', 'sip', 'spr', 'ss', 'srt', 'skoid', 'sktid', 'skt', 'ske', 'sks',
          'skv', 'sdd', 'saoid', 'suoid', 'scid', 'ses'}
_CLOSING = ':,.\'"`)]}>'  # characters that may follow a URL in a sentence
_LINE = re.compile(r':\d{1,12}\Z')  # line number in `URL:LINE: message`
SHORTEST = 6  # minimum length of a secret that is searched for in other text


def redacted(text):
  """Remove user information, signatures, tokens and keys from the URLs in a text.

  Args:
    text: str, a URL or any text with URLs in it.
  """
  return _URL.sub(lambda match: _redact_url(match[0]), text)


def without_secrets(text, url):
  """Redact a text, and replace each credential of `url` in it, also in other encodings, by '***'.

  Args:
    text: str, for example an error message.
    url: str, the URL as written by the user.
  """
  urls = _URL.findall(url)
  secrets = [part for url in urls for user in _USER.findall(url) for part in user[:-1].split(':', 1)]
  secrets += [parameter.partition('=')[2] for url in urls
              for _, parameter, is_credential in _split(url)[1] if is_credential]
  text = redacted(text)
  secrets += [secret.rpartition(':')[0] for secret in secrets]  # a source may end in :FIELD
  for secret in sorted(set(secrets), key=len, reverse=True):
    for form in {secret, unquote(secret), quote(secret, safe=''), quote(unquote(secret), safe='')}:
      text = text.replace(form, '***') if len(form) >= SHORTEST else text
  return text


def redacted_values(value):
  """Redact all strings in a JSON value; field names are unchanged, tuples become lists."""
  if isinstance(value, str):
    return redacted(value)
  if isinstance(value, dict):
    return {name: redacted_values(item) for name, item in value.items()}
  return [redacted_values(item) for item in value] if isinstance(value, list | tuple) else value


def _redact_url(url):
  """Remove credentials from a URL, which starts at its `://`."""
  base, parameters, closing_marks = _split(_USER.sub('', url))
  for separator, parameter, is_credential in parameters:
    if not is_credential:
      first = '?' not in base and '#' not in base
      base += ('?' if first and separator in '&;' else separator) + parameter
  return base + closing_marks


def _split(url):
  """Return (part before query and fragment, [(separator, NAME=VALUE, is credential)], closing marks)."""
  bare = url.rstrip(_CLOSING)
  if url[len(bare):].startswith(':'):
    bare = _LINE.sub('', bare)
  base = re.split('[?#]', bare, maxsplit=1)[0]
  separators, parameters = (re.split('([?&;#])', bare[len(base):])[start::2] for start in (1, 2))
  names = [unquote(text.partition('=')[0]).lower() if '=' in text else '' for text in parameters]
  azure = _AZURE if 'sig' in names else ()
  is_credential = [bool(_SECRET.search(name)) or name in azure for name in names]
  return base, list(zip(separators, parameters, is_credential, strict=True)), url[len(bare):]
