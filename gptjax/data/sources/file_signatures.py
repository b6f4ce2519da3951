"""Recognizes files that are not UTF-8 text by their first bytes or a NUL byte."""

import codecs
import re

HEAD_BYTES = 512  # the size of the header of a tar archive
BYTE_ORDER_MARK = codecs.BOM_UTF8  # not part of the text
# UTF-32 before UTF-16, whose mark is a prefix of that of UTF-32.
_PREFIXES = (
  (codecs.BOM_UTF32_LE, 'UTF-32, not UTF-8', 'convert it (iconv -f UTF-32 -t UTF-8)'),
  (codecs.BOM_UTF32_BE, 'UTF-32, not UTF-8', 'convert it (iconv -f UTF-32 -t UTF-8)'),
  (codecs.BOM_UTF16_LE, 'UTF-16, not UTF-8', 'convert it (iconv -f UTF-16 -t UTF-8)'),
  (codecs.BOM_UTF16_BE, 'UTF-16, not UTF-8', 'convert it (iconv -f UTF-16 -t UTF-8)'),
  (b'\x1f\x8b', 'gzip data', 'its name must end in .gz'),
  (b'\x28\xb5\x2f\xfd', 'zstd data', 'its name must end in .zst'),
  (b'\xfd7zXZ\x00', 'xz data', 'its name must end in .xz'),
  (b'ARROW1\0\0', 'an Arrow file', 'read it by arrow:'),
  (b'\xff\xff\xff\xff', 'an Arrow file', 'read it by arrow:'),
  (b'PK\x03\x04', 'a zip archive', 'unpack it first'))
# Formats that start with letters, as text may, followed by bytes that text does not have: for bzip2 the mark
# of a block or the end of an empty file; for Parquet the first field of a Thrift header.
_PATTERNS = (
  (re.compile(rb'BZh[1-9](1AY&SY|\x17rE8P\x90)'), 'bzip2 data', 'its name must end in .bz2'),
  (re.compile(rb'PAR1\x15'), 'a Parquet file', 'read it by parquet:'),
  (re.compile(rb'WARC/[01]\.\d{1,2}\r?\n'), 'a web archive', 'read it by warc:'),
  (re.compile(rb'%PDF-\d\.'), 'a PDF file', 'extract its text first'),
  (re.compile(rb'.{257}ustar(\0|  \0)', re.DOTALL), 'a tar archive', 'read it by tar:'))


def not_text_problem(head):
  """Return why a file that starts with these bytes is not text, and what to do; '' if it may be text."""
  matches = [entry for entry in _PREFIXES if head.startswith(entry[0])]
  matches += [entry for entry in _PATTERNS if entry[0].match(head)]
  return f'not text, {matches[0][1]}: {matches[0][2]}' if matches else ''


def nul_byte_problem(offset):
  """Return the problem of a file with a NUL byte at this offset."""
  return f'not text, it has NUL bytes: the first one at byte {offset:,} (another encoding, or not text)'
