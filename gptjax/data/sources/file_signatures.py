"""What a file that should be UTF-8 text is instead, as far as its first bytes or a NUL byte show."""

import codecs
import re

HEAD_BYTES = 512  # bytes looked at, a tar archive's header
BYTE_ORDER_MARK = codecs.BOM_UTF8  # a byte-order mark, which is no part of the text
_UNPACK = 'unpack it first'
# UTF-32 before UTF-16, whose mark begins its own.
_BEGINNINGS = (
  (codecs.BOM_UTF32_LE, 'UTF-32, not UTF-8', 'convert it (iconv -f UTF-32 -t UTF-8)'),
  (codecs.BOM_UTF32_BE, 'UTF-32, not UTF-8', 'convert it (iconv -f UTF-32 -t UTF-8)'),
  (codecs.BOM_UTF16_LE, 'UTF-16, not UTF-8', 'convert it (iconv -f UTF-16 -t UTF-8)'),
  (codecs.BOM_UTF16_BE, 'UTF-16, not UTF-8', 'convert it (iconv -f UTF-16 -t UTF-8)'),
  (b'\x1f\x8b', 'gzip data', 'its name must end in .gz'),
  (b'\x28\xb5\x2f\xfd', 'zstd data', 'its name must end in .zst'),
  (b'\xfd7zXZ\x00', 'xz data', _UNPACK), (b'PK\x03\x04', 'a zip archive', _UNPACK))
# Formats that begin with letters, as a text may, too, with what no text has after them: of bzip2 the mark of
# a block, or the end of an empty file; of Parquet the first field of a header in Thrift.
_PATTERNS = (
  (re.compile(rb'BZh[1-9](1AY&SY|\x17rE8P\x90)'), 'bzip2 data', _UNPACK),
  (re.compile(rb'PAR1\x15'), 'a Parquet file', 'read it by parquet:'),
  (re.compile(rb'%PDF-\d\.'), 'a PDF file', 'extract its text first'),
  (re.compile(rb'.{257}ustar(\0|  \0)', re.DOTALL), 'a tar archive', 'read it by tar:'))


def not_text_problem(head):
  """Why a file that begins with these bytes is not text, `KIND: what to do`; '' if nothing shows it."""
  found = [one for one in _BEGINNINGS if head.startswith(one[0])]
  found += [one for one in _PATTERNS if one[0].match(head)]
  return f'not text, {found[0][1]}: {found[0][2]}' if found else ''


def nul_byte_problem(offset):
  """What to say of a NUL byte, so many bytes after the beginning."""
  return f'not text, it has NUL bytes: the first one at byte {offset:,} (another encoding, or not text)'
