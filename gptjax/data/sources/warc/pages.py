"""Documents from WARC files, one per page: the text of each response that is HTML.

Requests, metadata, revisits, redirects, errors of servers, and files of other types are not documents. A page
without a main text, or one that cannot be decoded, is one with a problem.
"""

from importlib import metadata

from gptjax.data.links import urls as canonical_urls
from gptjax.data.sources import files
from gptjax.data.sources.decompression import DamagedFile
from gptjax.data.sources.warc import html, http, records
from gptjax.text.printable import printable

LIBRARIES = ('resiliparse', 'brotli')  # on whose versions the text depends


def pieces(path, urls=None, first=0, end=None):
  """Yield the pieces of the documents of a file, with `url`, `title` and `date` in their fields.

  Args:
    path: of the file.
    urls: url_list.UrlList: only pages of these URLs; None: all.
    first, end: positions; only the records that begin in [first, end).
  """
  is_wanted = lambda headers: _may_be_page(headers, urls)
  for record in records.read(path, is_wanted, first, end):
    url = _target(record.headers)
    location = f'{path}:byte {record.start}' + (f':{printable(url)}' if url else '')
    try:
      if record.problem and _may_have_page(record):
        raise DamagedFile(record.problem)
      page = None if record.problem else _page(record)
      if page:
        text = html.extract(page)
        fields = {'url': url, 'title': text.title, 'date': record.headers.get('warc-date', '')}
        fields = {name: value for name, value in fields.items() if value}
        yield from files.document_pieces(text.text, location, fields)
    except DamagedFile as error:
      yield files.Piece('', location, problem=error.args[0])


def versions():
  """Return {name: version} of the libraries on which the text of a page depends."""
  return {name: metadata.version(name) for name in LIBRARIES}


def _target(headers):
  return headers.get('warc-target-uri', '').strip('<>')


def _may_be_page(headers, urls):
  if headers.get('warc-type', '').lower() not in ('response', 'resource'):
    return False
  url = canonical_urls.canonical(_target(headers))
  return bool(url) and (urls is None or urls.has(url))


def _may_have_page(record):
  """Return whether a record with a problem may have a page; one that is too long may be of another type."""
  try:
    return not record.content or _page(record) is not None
  except DamagedFile:
    return True


def _page(record):
  kind = record.headers.get('content-type', '')
  if record.headers['warc-type'].lower() == 'resource':
    return http.page_of_resource(record.content, kind)
  return http.page_of_response(record.content)
