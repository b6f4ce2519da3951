"""Extracts text and title of a page.

The paper used Dragnet and Newspaper, which have had no release since 2019 and 2018. Resiliparse takes their
place (Apache-2.0, wheels of 3.5 MB with what it needs for Python 3.10 and newer, without data to download):
one library for character encodings, HTML and the main text. Trafilatura finds the main text in more kinds of
pages, but takes about ten times as long, and its text depends on the versions of seven more packages.
"""

from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse import encoding
from resiliparse.parse.html import HTMLParserException, HTMLTree

from gptjax.data.sources.decompression import DamagedFile

MAX_DEPTH = 512  # of elements, as in browsers: the time of the extractor grows with its square
_TOO_DEEP = ' > '.join('*' * MAX_DEPTH)
# Encodings whose texts may be valid UTF-8, but mean something else.
_NOT_ASCII_COMPATIBLE = ('utf-16', 'utf-32', 'iso-2022', 'hz', 'iso2022')


class Text(NamedTuple):
  """The text of a page."""
  text: str
  title: str


def extract(page):
  """Return the Text of a Page; the text is '' if the page has no main text.

  Raises:
    DamagedFile: the page cannot be parsed.
  """
  try:
    tree = HTMLTree.parse(decode(page))
    if tree.document.query_selector(_TOO_DEEP) is not None:
      raise DamagedFile(f'damaged: elements that are nested {MAX_DEPTH} deep')
    text = extract_plain_text(tree, main_content=True, list_bullets=False, alt_texts=False, comments=False,
                              post_meta=False)
    return Text(text.strip(), ' '.join((tree.title or '').split()))
  except HTMLParserException as error:
    raise DamagedFile(f'damaged: {error}') from None
  except BaseException as error:
    if type(error).__module__ != 'pyo3_runtime':
      raise
    # A panic of Rust.
    raise DamagedFile(f'the extractor fails: {" ".join(str(error).split())[:200]}') from None


def decode(page):
  """Return the HTML of a Page as text.

  The encoding is that of a byte-order mark; UTF-8 if the bytes are valid UTF-8, whatever is declared; that
  of the headers; that of the page itself; or else what the bytes look like.
  """
  charset = page.charset.lower()
  if page.html.startswith((b'\xff\xfe', b'\xfe\xff')):
    charset = 'utf-16'
  elif not charset.startswith(_NOT_ASCII_COMPATIBLE):
    try:
      return page.html.decode('utf-8-sig')
    except UnicodeDecodeError:
      pass
  declared = encoding.map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
  found = declared or encoding.detect_encoding(page.html, from_html_meta=True)
  return encoding.bytes_to_str(page.html, found, errors='replace',
                               fallback_encodings=('utf-8', 'windows-1252'))
