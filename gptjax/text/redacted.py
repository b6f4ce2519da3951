"""URLs without what gives access: user names with passwords, signatures, tokens and keys.

Whatever records or shows a source takes it in this form. Of two presigned links to one file the form is the
same, so digests that decide whether work can continue are of this form, too.
"""

import re
from urllib.parse import quote, unquote

_URL = re.compile(r'://\S+')
# `USER@` or `USER:PASSWORD@` after `://`; or `KEY:SECRET@`, for the secret keys of S3 may hold slashes. Then
# `HOST:PORT/` is no user.
_USER = re.compile(r'(?<=://)(?:[^\s/?#]*@|[^\s/@:\[]*:(?!\d+[/?#])(?:(?!://)[^\s@?#])*@)')
_SECRET = re.compile(
  r'^x-(amz|goog|ms|oss|cos|obs)-|(^|[-_])key$|^key-pair-id$|access(key)?id$|(api|access|secret)[-_]?key|'
  r'^policy$|^sig$|^expires$|signature|credential|secret|token($|[-_])|passw|pwd$|(^|[-_])auth($|[-_]|oriz)',
  re.IGNORECASE)
# The other parameters of a signature of Azure, whose names mean nothing where there is no `sig`.
_AZURE = {'sv', 'st', 'se', 'sr', 'sp', 'sip', 'spr', 'ss', 'srt', 'skoid', 'sktid', 'skt', 'ske', 'sks',
          'skv', 'sdd', 'saoid', 'suoid', 'scid', 'ses'}
_CLOSING = ':,.\'"`)]}>'  # what ends a sentence or a quotation after a URL
_LINE = re.compile(r':\d{1,12}\Z')  # of a line, in `URL:LINE: what is wrong`
SHORTEST = 6  # characters of a secret that is looked for in other text


def redacted(text):
  """A text in which no URL has user information, a signature, a token or a key; other text is unchanged.

  Args:
    text: str, a URL or any text with URLs in it.
  """
  return _URL.sub(lambda found: _plain(found[0]), text)


def without_secrets(text, url):
  """`redacted` text about a URL, which may quote a part of that alone, or encoded in another way.

  Args:
    text: str, the message of an error for instance.
    url: str, the URL as it was given.
  """
  found = _URL.findall(url)
  secrets = [part for one in found for user in _USER.findall(one) for part in user[:-1].split(':', 1)]
  secrets += [part.partition('=')[2] for one in found for _, part, access in _split(one)[1] if access]
  text = redacted(text)
  secrets += [secret.rpartition(':')[0] for secret in secrets]  # a source may end in :FIELD
  for secret in sorted(set(secrets), key=len, reverse=True):
    for form in {secret, unquote(secret), quote(secret, safe=''), quote(unquote(secret), safe='')}:
      text = text.replace(form, '***') if len(form) >= SHORTEST else text
  return text


def redacted_values(value):
  """A JSON value, or one with tuples, in which all strings are `redacted`; names of fields are not."""
  if isinstance(value, str):
    return redacted(value)
  if isinstance(value, dict):
    return {name: redacted_values(one) for name, one in value.items()}
  return [redacted_values(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(url):
  """A URL, from its `://` on, without what gives access."""
  place, parameters, closing = _split(_USER.sub('', url))
  for sign, part, gives_access in parameters:
    if not gives_access:
      first = '?' not in place and '#' not in place
      place += ('?' if first and sign in '&;' else sign) + part
  return place + closing


def _split(url):
  """(what stands before query and fragment, [(sign, NAME=VALUE, whether it gives access)], closing marks)."""
  bare = url.rstrip(_CLOSING)
  if url[len(bare):].startswith(':'):
    bare = _LINE.sub('', bare)
  place = re.split('[?#]', bare, maxsplit=1)[0]
  signs, parts = (re.split('([?&;#])', bare[len(place):])[start::2] for start in (1, 2))
  names = [part.partition('=')[0].lower() if '=' in part else '' for part in parts]
  azure = _AZURE if 'sig' in names else ()
  access = [bool(_SECRET.search(name)) or name in azure for name in names]
  return place, list(zip(signs, parts, access, strict=True)), url[len(bare):]
