"""Canonical URLs: what fetches the same page has one form, and the form of a form is itself."""

import urllib.parse

import hypothesis
import pytest
from hypothesis import strategies as st

from gptjax.data.links import urls

CANONICAL = {
  'http://example.org': 'http://example.org/',
  'HTTP://Example.ORG/A': 'http://example.org/A',
  ' https://example.org/a\n': 'https://example.org/a',
  'http://example.org:80/': 'http://example.org/',
  'https://example.org:443/': 'https://example.org/',
  'https://example.org:80/': 'https://example.org:80/',
  'http://example.org:0080/': 'http://example.org/',
  'http://example.org:8080/a': 'http://example.org:8080/a',
  'http://example.org:/a': 'http://example.org/a',
  'http://example.org./a': 'http://example.org/a',
  'http://user:password@example.org/a': 'http://example.org/a',
  'http://example.org/a#b': 'http://example.org/a',
  'http://example.org#b': 'http://example.org/',
  'http://example.org?a=1': 'http://example.org/?a=1',
  'http://example.org/a?': 'http://example.org/a',
  'http://example.org/a?utm_source=x&b=1&UTM_medium=y&fbclid=z': 'http://example.org/a?b=1',
  'http://example.org/a?utm%5Fsource=x': 'http://example.org/a',
  'http://example.org/a?b=2&a=1&&': 'http://example.org/a?b=2&a=1',
  'http://example.org/a?u=http://b.org/?c': 'http://example.org/a?u=http://b.org/?c',
  'http://example.org/%7Euser/%e2%82%ac%2f': 'http://example.org/~user/%E2%82%AC%2F',
  'http://example.org/100%': 'http://example.org/100%25',
  'http://example.org/a b"<c>': 'http://example.org/a%20b%22%3Cc%3E',
  'http://example.org/naïve?q=café': 'http://example.org/na%C3%AFve?q=caf%C3%A9',
  'http://example.org/a/./b/../c/..': 'http://example.org/a/',
  'http://example.org/../../a//b': 'http://example.org/a//b',
  'http:\\\\example.org\\a': '',
  'http://example.org\\a\\b': 'http://example.org/a/b',
  'http://bücher.example/': 'http://xn--bcher-kva.example/',
  'http://BÜCHER.example。org/': 'http://xn--bcher-kva.example.org/',
  'http://xn--bcher-kva.example/': 'http://xn--bcher-kva.example/',
  'http://a_b.example.org/': 'http://a_b.example.org/',
}
NOT_PAGES = [
  '', 'example.org', '/r/news/comments/1', '//example.org/a', 'ftp://example.org/', 'mailto:a@example.org',
  'javascript:alert(1)', 'http://', 'http:///a', 'http://localhost/', 'http://127.0.0.1/', 'http://[::1]/',
  'http://2130706433/', 'http://0x7f.1/', 'http://a..org/', 'http://-a.org/', 'http://exa mple.org/',
  'http://example.org:99999/', 'http://example.org:0/', 'http://example.org:a/', 'http://%65xample.org/',
  'http://example.org/a\0b', 'http://example.org/a\nb', 'http://example.org/\ud800', 'http://bü..example/',
  'http://' + 'a' * 64 + '.org/', 'http://' + 'a.' * 130 + 'org/', 'http://example.org/' + 'a' * 2048,
  'http://example.org/' + 'ü' * 400, '[deleted]', 'http://*.example.org/']


@pytest.mark.parametrize('url', CANONICAL)
def test_the_canonical_form(url):
  assert urls.canonical(url) == CANONICAL[url]


@pytest.mark.parametrize('url', NOT_PAGES)
def test_what_is_not_the_url_of_a_page(url):
  assert urls.canonical(url) == ''


PIECES = st.text('abA%/?#&=.:@\\ üß2eF_~;"<', max_size=30)


@hypothesis.given(st.sampled_from(['http', 'HTTPS']),
                  st.sampled_from(['example.org', 'WWW.Bücher.example', 'u@a.b.co:81']), PIECES)
@hypothesis.settings(deadline=None, max_examples=500)
def test_the_form_of_a_form_is_itself_and_python_reads_the_same_from_both(scheme, host, rest):
  written = f'{scheme}://{host}/{rest.strip()}'
  url = urls.canonical(written)
  assert url.isascii() and urls.canonical(url) == url and '#' not in url and ' ' not in url
  parts = urllib.parse.urlsplit(url)
  assert parts.scheme == scheme.lower() and parts.hostname.removeprefix('www.') == urls.host_of(url)
  assert parts.path == urls.path_of(url)
  given = urllib.parse.urlsplit(written)
  unquoted = lambda text, mark: [part for part in map(urllib.parse.unquote, text.split(mark)) if part]
  assert unquoted(parts.query, '&') == unquoted(given.query, '&')
  segments = unquoted(given.path.replace('\\', '/'), '/')
  if not {'..', '.'} & set(segments):
    assert unquoted(parts.path, '/') == segments


@hypothesis.given(st.text(max_size=60))
@hypothesis.settings(deadline=None, max_examples=300)
def test_any_text_has_a_form_or_none(text):
  for written in (text, f'http://{text}', f'http://example.org/{text}'):
    url = urls.canonical(written)
    assert url == '' or (urls.canonical(url) == url and len(urls.key(url)) == 16)


def test_keys_ignore_what_most_sites_redirect():
  same = ['http://example.org/a', 'https://example.org/a', 'http://www.example.org/a/',
          'https://www.example.org/a//']
  assert len(set(map(urls.key, same))) == 1
  others = ['http://example.org/b', 'http://example.org/a?b=1', 'http://example.org/a/b', 'http://example.org:81/a',
            'http://www2.example.org/a', 'http://example.org/A', 'http://example.org/', 'http://wwwexample.org/a']
  assert len({urls.key(url) for url in same + others}) == 1 + len(others)
