"""Reads a stored HTTP response: its status, type, and decoded body.

Crawlers store responses as they came, or decoded with the headers left as they were. So a body that is not
what the headers say, although that can be recognized, is taken as it is.
"""

import re
import zlib
from typing import NamedTuple

import brotli

from gptjax.data.sources.decompression import DamagedFile
from gptjax.data.sources.warc import records

MAX_BODY = 1 << 22     # bytes of a page after decoding
MAX_ENCODINGS = 3      # of one body
HTML = ('text/html', 'application/xhtml+xml')
_STATUS = re.compile(rb'HTTP/[0-9.]{1,5} ([0-9]{3})')
_BLANK_LINE = re.compile(rb'\r?\n\r?\n')
_CHUNK_SIZE = re.compile(rb'([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n')
_CHARSET = re.compile(r'charset\s*=\s*["\']?([A-Za-z0-9._:-]+)', re.IGNORECASE)
_LOOKS_LIKE_HTML = re.compile(
  rb'(?:\xef\xbb\xbf)?\s*(?:<!--.{0,1000}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b',
  re.IGNORECASE | re.DOTALL)


class Page(NamedTuple):
  """The HTML of a page."""
  html: bytes
  charset: str   # as the headers have it; '' if they do not


def page_of_response(content):
  """Return the Page of a stored response; None if it is not a page: another status, type, or no response.

  Raises:
    DamagedFile: the body cannot be decoded, or is longer than MAX_BODY.
  """
  end = _BLANK_LINE.search(content)
  status = _STATUS.match(content)
  if not end or not status or status[1] != b'200':
    return None
  headers = records.parse_headers(content[:end.start()].partition(b'\n')[2].decode('latin-1'))
  body, kind = content[end.end():], headers.get('content-type', '')
  if kind and kind.partition(';')[0].strip().lower() not in HTML:
    return None
  encodings = [name.strip().lower() for field in ('content-encoding', 'transfer-encoding')
               for name in headers.get(field, '').split(',') if name.strip()]
  if len(encodings) > MAX_ENCODINGS:
    raise DamagedFile(f'damaged: {len(encodings)} encodings')
  for name in reversed(encodings):
    body = _decoded(body, name)
  if len(body) > MAX_BODY:
    raise DamagedFile(_too_long())
  return _page(body, kind)


def page_of_resource(content, kind):
  """Return the Page of a content of this type, stored without a response; None if it is not HTML."""
  if kind.partition(';')[0].strip().lower() not in HTML:
    return None
  if len(content) > MAX_BODY:
    raise DamagedFile(_too_long())
  return _page(content, kind)


def _page(body, kind):
  charset = _CHARSET.search(kind)
  return Page(body, charset[1] if charset else '') if kind or _LOOKS_LIKE_HTML.match(body) else None


def _too_long():
  return f'too long: a page of more than {MAX_BODY:,} bytes'


def _decoded(body, name):
  if not body:
    return body
  if name == 'chunked':
    return _joined_chunks(body)
  if name in ('gzip', 'x-gzip'):
    return _inflated(body, 31) if body.startswith(b'\x1f\x8b') else body
  if name == 'deflate':
    return _looks_decoded(body) or _inflated(body, 15 if _has_zlib_header(body) else -15)
  if name == 'br':
    return _looks_decoded(body) or _from_brotli(body)
  if name in ('identity', 'none', 'utf-8'):
    return body
  if decoded := _looks_decoded(body):
    return decoded
  raise DamagedFile(f'unknown encoding: {name[:20]!r}')


def _looks_decoded(body):
  """Return the body if it is HTML or empty, and b'' otherwise."""
  return body if _LOOKS_LIKE_HTML.match(body) else b''


def _joined_chunks(body):
  if not _CHUNK_SIZE.match(body):
    return body  # the crawler has joined them
  found, at = [], 0
  while header := _CHUNK_SIZE.match(body, at):
    size = int(header[1], 16)
    if not size:
      return b''.join(found)
    found.append(body[header.end():header.end() + size])
    at = header.end() + size
    if at > len(body):
      break
    at += 2 if body[at:at + 2] == b'\r\n' else 1
  raise DamagedFile('cut short within the chunks of a page')


def _has_zlib_header(body):
  return len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _inflated(body, bits):
  decoder = zlib.decompressobj(bits)
  try:
    text = decoder.decompress(body, MAX_BODY + 1)
  except zlib.error as error:
    raise DamagedFile(f'damaged: {error}') from None
  if len(text) > MAX_BODY:
    raise DamagedFile(_too_long())
  if not decoder.eof:
    raise DamagedFile('cut short within a compressed page')
  return text


def _from_brotli(body):
  decoder, found, size = brotli.Decompressor(), [], 0
  try:
    while not decoder.is_finished():
      text = decoder.process(body, output_buffer_limit=MAX_BODY)
      size, body = size + len(text), b''
      found.append(text)
      if size > MAX_BODY:
        raise DamagedFile(_too_long())
      if not text:
        raise DamagedFile('cut short within a compressed page')
  except brotli.error as error:
    raise DamagedFile(f'damaged: {error}') from None
  return b''.join(found)
