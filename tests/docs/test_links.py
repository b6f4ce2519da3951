"""Links within the documentation lead to pages, files and anchors that exist; every page is in a toctree."""

import functools
import re
from pathlib import Path

import markdown_pages as pages
import pytest

GENERATED = pages.generated_pages()
LABELS = r'\{ref\}`(?:[^`<]*<)?([^`<>]+)>?`'


@functools.cache
def text_of(path):
  """A page with its generated parts."""
  return GENERATED.expand(path.read_text())


@pytest.mark.parametrize('path', pages.paths(), ids=pages.name_of)
def test_links_lead_somewhere(path):
  broken = []
  for line, target in pages.links(path.read_text()):
    if re.match(r'[a-z][a-z0-9+.-]*:', target):  # https: and other schemes
      continue
    file, _, anchor = target.partition('#')
    page = (path.parent / file).resolve() if file else path
    if not page.suffix and page.with_suffix('.md').exists():
      page = page.with_suffix('.md')
    if not page.exists():
      broken.append(f'{line}: {target}: no such file')
    elif pages.DOCS in path.parents and pages.DOCS not in page.parents:
      broken.append(f'{line}: {target}: outside of the site')
    elif anchor and page.suffix == '.md' and anchor not in pages.anchors(text_of(page)):
      broken.append(f'{line}: {target}: no such anchor')
  assert not broken, '\n'.join(broken)


def toctree(path):
  """The pages that the toctrees of a page list."""
  entries = [line.strip() for block in pages.blocks(path.read_text()) if block.language == '{toctree}'
             for line in block.body.splitlines() if line.strip()]
  names = [re.sub(r'.*<(.*)>', r'\1', entry).removesuffix('.md') for entry in entries]
  return [path.parent / f'{name}.md' for name in names]


def test_every_page_is_in_the_navigation():
  reached, left = set(), [pages.DOCS / 'index.md']
  while left:
    page = left.pop()
    assert page.exists(), f'{pages.name_of(page)} is in a toctree, but does not exist'
    reached.add(page)
    left += [entry for entry in toctree(page) if entry not in reached]
  site = {path for path in pages.paths() if pages.DOCS in path.parents}
  assert not {pages.name_of(path) for path in site - reached}


def test_anchors_are_those_of_the_rendered_page():
  text = '# A title: `code`, and more!\n\n```\n# no heading\n```\n\n## Twice\n\n(here)=\n## Twice\n'
  assert pages.anchors(text) == {'a-title-code-and-more', 'twice', 'twice-1', 'here'}


def test_links_in_code_are_none():
  text = '[a](b.md#c) `[x](y)` ![i](i.png)\n\n```\n[x](y)\n```\n\n<img src="j.svg">\n'
  assert [target for _, target in pages.links(text)] == ['b.md#c', 'i.png', 'j.svg']


@pytest.mark.parametrize('path', pages.paths(), ids=pages.name_of)
def test_labels_of_references_exist(path):
  labels = {label for page in pages.paths() for label in
            re.findall(r'^\(([\w.:-]+)\)=$', page.read_text(), re.MULTILINE)}
  assert set(re.findall(LABELS, pages.prose(path.read_text()))) <= labels


def test_images_of_the_documentation_are_used():
  used = {Path(path.parent, target).resolve() for path in pages.paths()
          for _, target in pages.links(path.read_text()) if not target.startswith('http')}
  images = {path for suffix in ('png', 'svg') for path in pages.DOCS.rglob(f'*.{suffix}')
            if '_build' not in path.parts}
  assert not {pages.name_of(path) for path in images - used}
