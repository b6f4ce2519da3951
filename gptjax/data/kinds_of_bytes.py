"""What a file that should be UTF-8 text is instead, as far as its first bytes or a NUL byte show."""

import codecs

HEAD = 512  # bytes looked at, a tar archive's header
MARK = codecs.BOM_UTF8  # a byte-order mark, which is no part of the text
_UNPACK = 'unpack it first'
# UTF-32 before UTF-16, whose mark begins its own.
_BEGINNINGS = (
  (codecs.BOM_UTF32_LE, 'UTF-32, not UTF-8', 'convert it (iconv -f UTF-32 -t UTF-8)'),
  (codecs.BOM_UTF32_BE, 'UTF-32, not UTF-8', 'convert it (iconv -f UTF-32 -t UTF-8)'),
  (codecs.BOM_UTF16_LE, 'UTF-16, not UTF-8', 'convert it (iconv -f UTF-16 -t UTF-8)'),
  (codecs.BOM_UTF16_BE, 'UTF-16, not UTF-8', 'convert it (iconv -f UTF-16 -t UTF-8)'),
  (b'\x1f\x8b', 'gzip data', 'its name must end in .gz'),
  (b'\x28\xb5\x2f\xfd', 'zstd data', 'its name must end in .zst'),
  (b'\xfd7zXZ\x00', 'xz data', _UNPACK), (b'BZh', 'bzip2 data', _UNPACK),
  (b'PK\x03\x04', 'a zip archive', _UNPACK),
  (b'PAR1', 'a Parquet file', 'read it by parquet:'), (b'%PDF-', 'a PDF file', 'extract its text first'))


def not_text(head):
  """Why a file that begins with these bytes is not text, `KIND: what to do`; '' if nothing shows it."""
  if head[257:262] == b'ustar':
    return 'not text, a tar archive: read it by tar:'
  for beginning, kind, remedy in _BEGINNINGS:
    if head.startswith(beginning):
      return f'not text, {kind}: {remedy}'
  return ''


def nul_byte(offset):
  """What to say of a NUL byte, so many bytes after the beginning."""
  return f'not text, it has NUL bytes: the first one at byte {offset:,} (another encoding, or not text)'
