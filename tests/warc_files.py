"""Web archives of a few pages, written as crawlers do."""

import gzip

PROSE = 'The river was low that summer, and the stones on the far side were dry. '


def html(text, *, title='A title', head='', charset='utf-8'):
  """A page with a menu, an article and a footer."""
  page = (f'<!DOCTYPE html><html><head><title>{title}</title>{head}</head><body><nav><ul><li>'
          '<a href="/">Home</a></li><li><a href="/x">Menu entry</a></li></ul></nav><article><h1>Heading</h1>'
          f'<p>{text}</p></article><footer><a href="/about">Imprint</a></footer></body></html>')
  return page.encode(charset)


def response(body, content_type='text/html; charset=utf-8', status='200 OK', **headers):
  """An HTTP response; headers as Content_Encoding='gzip'."""
  lines = [f'HTTP/1.1 {status}', *([f'Content-Type: {content_type}'] if content_type else []),
           *(f'{name.replace("_", "-")}: {value}' for name, value in headers.items())]
  return '\r\n'.join(lines).encode() + b'\r\n\r\n' + body


def record(content, url='http://example.org/a', kind='response', length=None, **headers):
  """A record of a WARC file."""
  fields = {'WARC-Type': kind, 'WARC-Record-ID': '<urn:uuid:6b9b1e5c-0000-4000-8000-000000000000>',
            'WARC-Date': '2017-05-06T07:08:09Z', 'WARC-Target-URI': url,
            'Content-Type': 'application/http; msgtype=response',
            **{name.replace('_', '-'): value for name, value in headers.items()},
            'Content-Length': len(content) if length is None else length}
  lines = ''.join(f'{name}: {value}\r\n' for name, value in fields.items())
  return f'WARC/1.0\r\n{lines}\r\n'.encode() + content + b'\r\n\r\n'


def page(text, url='http://example.org/a', **options):
  """The record of a page."""
  return record(response(html(text, **options)), url)


def write(path, records):
  """Write records to a file, `.warc.gz` with a member each; returns its path."""
  path.write_bytes(b''.join(map(stored(path), records)))
  return path


def stored(path):
  return (lambda one: gzip.compress(one, mtime=0)) if path.suffix == '.gz' else bytes


def ends(path, records):
  """Positions in the file at which the records end."""
  sizes = [len(stored(path)(one)) for one in records]
  return [sum(sizes[:i + 1]) for i in range(len(sizes))]


def chunked(body, size=100):
  parts = [body[at:at + size] for at in range(0, len(body), size)]
  return b''.join(b'%x\r\n%b\r\n' % (len(part), part) for part in parts) + b'0\r\n\r\n'
