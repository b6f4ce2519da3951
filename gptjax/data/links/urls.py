"""Canonical URLs, and the keys by which they are compared.

A canonical URL is what a crawler fetches, in ASCII: the syntax is normalized as RFC 3986, section 6.2.2 and
6.2.3, describes, and what does not choose the page is left out: the fragment, a user, and the parameters by
which campaigns are followed. Nothing is looked up, so the result depends on the text alone.

Two URLs have the same key if they differ at most in http or https, a leading `www.`, and slashes at the end
of the path. Most sites redirect one of these forms to another one.

No library is used: the parser of `urllib` changes between versions of Python (bpo-43882, gh-102153), and
`w3lib` and `url-normalize` keep the parameters of campaigns.
"""

import hashlib
import re

MAX_LENGTH = 2048           # characters of a canonical URL; sites and crawlers refuse longer ones
MAX_WRITTEN = 1 << 15       # of a URL before that
TRACKING = frozenset((      # parameters that say where a reader comes from
  'fbclid', 'gclid', 'dclid', 'gclsrc', 'msclkid', 'yclid', 'mc_cid', 'mc_eid', 'igshid', '_hsenc', '_hsmi',
  'ref_src', 'ref_url', 'ncid', 'ocid', 'cmpid', 'icid', 'spm'))
TRACKING_PREFIX = 'utm_'    # of Google Analytics

_PARTS = re.compile(r'(https?):/{2,}([^/?#\\]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?', re.IGNORECASE | re.DOTALL)
_PORT = re.compile(r':([0-9]{0,9})$')
_LABELS = re.compile(r'(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]')
_ESCAPE = re.compile(r'%([0-9A-Fa-f]{2})|%')
_UNRESERVED = frozenset('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~')
_ALLOWED = _UNRESERVED | frozenset("%!$&'()*+,;=:@/")  # in a path; also `?` in a query
_CONTROL = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff]')
_DEFAULT_PORTS = {'http': '80', 'https': '443'}
_WHITE_SPACE = ' \t\r\n\f\v\u00a0\u200b\ufeff'


def canonical(url):
  """Return the canonical form of the URL of a web page; '' if it is none.

  The host must be a name with a dot: an address of an own network would be fetched there.

  Args:
    url: str, as a user wrote it.
  """
  url = url.strip(_WHITE_SPACE) if len(url) <= MAX_WRITTEN else ''
  match = None if _CONTROL.search(url) else _PARTS.fullmatch(url)
  if not match:
    return ''
  scheme, authority, path, query = match[1].lower(), match[2], match[3].replace('\\', '/'), match[4] or ''
  host = _host(authority, scheme)
  if not host:
    return ''
  query = '&'.join(part for part in _escaped(query, _ALLOWED | {'?'}).split('&')
                   if part and not _is_tracking(part))
  text = f'{scheme}://{host}{_without_dots(_escaped(path, _ALLOWED))}{query and "?"}{query}'
  return text if len(text) <= MAX_LENGTH else ''


def host_of(url):
  """Return the host of a canonical URL, without `www.` and the port."""
  return url.split('/', 3)[2].partition(':')[0].removeprefix('www.')


def path_of(url):
  """Return the path of a canonical URL."""
  return '/' + url.split('/', 3)[3].partition('?')[0]


def key(url):
  """Return 16 bytes: the key of a canonical URL."""
  _, _, host, rest = url.split('/', 3)
  path, mark, query = rest.partition('?')
  text = f'{host.removeprefix("www.")}/{path.rstrip("/")}{mark}{query}'
  return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _host(authority, scheme):
  """Return host and port of an authority; '' if the host is not a name with a dot."""
  host = authority.rpartition('@')[2]
  port = ''
  if match := _PORT.search(host):
    host, port = host[:match.start()], match[1]
    if port and not 0 < int(port) < 65536:
      return ''
    port = port.lstrip('0')
  host = host.lower()
  if not host.isascii():
    try:
      host = host.encode('idna').decode()
    except UnicodeError:
      return ''
  host = host.rstrip('.')
  if len(host) > 253 or not _LABELS.fullmatch(host):
    return ''
  return f'{host}:{port}' if port and port != _DEFAULT_PORTS[scheme] else host


def _escaped(text, allowed):
  """Return a part of a URL in which exactly those characters are escaped that have to be."""
  text = _ESCAPE.sub(_one_escape, text)
  if allowed.issuperset(text):
    return text
  return ''.join(c if c in allowed else ''.join(f'%{byte:02X}' for byte in c.encode()) for c in text)


def _one_escape(match):
  if not match[1]:
    return '%25'
  character = chr(int(match[1], 16))
  return character if character in _UNRESERVED else f'%{match[1].upper()}'


def _is_tracking(parameter):
  name = parameter.partition('=')[0].lower()
  return name in TRACKING or name.startswith(TRACKING_PREFIX)


def _without_dots(path):
  """Return a path without `.` and `..` (RFC 3986, section 5.2.4)."""
  found = []
  segments = path.split('/')[1:] or ['']
  for segment in segments:
    if segment == '..':
      del found[-1:]
    elif segment != '.':
      found.append(segment)
  if segments[-1] in ('.', '..'):
    found.append('')
  return '/' + '/'.join(found)
