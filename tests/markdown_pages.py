"""The Markdown pages of the documentation: their files, text, code blocks, headings and links."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
TOP = 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'launch/README.md'  # if they exist

FENCE = re.compile(r'^(?P<indent> *)(?P<fence>`{3,}|~{3,}|:{3,})(?P<info>.*)$')
OPTION = re.compile(r'^:([\w-]+):\s*(.*)$')
MARK = re.compile(r'^\s*(?:<!--\s*(needs-[\w-]+)\s*-->|%\s*(needs-[\w-]+))\s*$')
NEEDS = {'needs-data', 'needs-hardware', 'needs-network'}


class Block(NamedTuple):
  """A fenced block.

  language: of the code, 'console'; that of a directive `code-block` too; '{name}' of another directive.
  options: of the directive, {'class': 'needs-data'}; a comment `<!-- needs-data -->` before the block is a
    class as well.
  body: text without the options.
  start, end: positions in the text of the page.
  line: number of the first line, from 1.
  """
  language: str
  options: dict
  body: str
  start: int
  end: int
  line: int

  @property
  def needs(self):
    """The classes that say what the block needs beyond two CPU cores."""
    return NEEDS & set(self.options.get('class', '').split())


def paths():
  """All pages: those of the site and those at the top of the repository."""
  site = [path for path in sorted(DOCS.rglob('*.md')) if '_build' not in path.parts]
  return site + [ROOT / name for name in TOP if (ROOT / name).exists()]


def name_of(path):
  return path.relative_to(ROOT).as_posix()


def blocks(text):
  """Return [Block] of a page, without those inside another block."""
  found, opened, position, mark = [], None, 0, ''
  for number, line in enumerate(text.splitlines(keepends=True), 1):
    match = FENCE.match(line.rstrip('\n'))
    if opened is None:
      if match:
        opened = match['fence'], match['info'].strip(), position, number, mark, []
      elif line.strip():
        marked = MARK.match(line)
        mark = (marked[1] or marked[2]) if marked else ''
    else:
      fence, info, start, first, needs, lines = opened
      closes = match and not match['info'].strip() and match['fence'].startswith(fence)
      if closes:
        found.append(_block(info, lines, needs, start, position + len(line), first))
        opened, mark = None, ''
      else:
        lines.append(line)
    position += len(line)
  assert opened is None, f'line {opened[3]}: the block is not closed'
  return found


def _block(info, lines, needs, start, end, line):
  directive = re.match(r'\{([\w:-]+)\}\s*(.*)', info)
  options, language = {}, info.split()[0] if info else ''
  if directive:
    is_code = directive[1] in ('code-block', 'code', 'sourcecode')
    language = directive[2].strip() if is_code else f'{{{directive[1]}}}'
    while lines and (option := OPTION.match(lines[0].strip())):
      options[option[1]] = option[2]
      lines = lines[1:]
  if needs:
    options['class'] = f'{options.get("class", "")} {needs}'.strip()
  return Block(language, options, ''.join(lines), start, end, line)


def files(name):
  """Return {caption: body} of the blocks of a page that are files."""
  return {block.options['caption']: block.body for block in blocks((ROOT / name).read_text())
          if 'caption' in block.options}


def prose(text):
  """Return the text with blocks of code replaced by empty lines; directives that hold prose stay."""
  parts, position = [], 0
  for block in blocks(text):
    holds_prose = re.fullmatch(r'\{(note|warning|tip|admonition|important|seealso|dropdown|confval|option)\}',
                               block.language)
    if not holds_prose:
      parts += [text[position:block.start], '\n' * text[block.start:block.end].count('\n')]
      position = block.end
  return ''.join(parts) + text[position:]


def anchors(text):
  """Return the anchors of a page: slugs of headings as GitHub and MyST make them, and explicit targets."""
  text, found, seen = prose(text), set(), {}
  for heading in re.findall(r'^#{1,6} +(.*?)\s*#*$', text, re.MULTILINE):
    plain = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', heading).replace('\\', '')
    slug = re.sub(r'[^\w\- ]', '', plain.lower().strip()).replace(' ', '-')
    number = seen[slug] = seen.get(slug, -1) + 1
    found.add(f'{slug}-{number}' if number else slug)
  found |= set(re.findall(r'^\(([\w.:-]+)\)=$', text, re.MULTILINE))
  return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def links(text):
  """Return [(line, target)] of the links and images of a page."""
  text = re.sub(r'(`+)(?!`).+?(?<!`)\1(?!`)', lambda match: ' ' * len(match[0]), prose(text))
  found = [(match.start(), match[1]) for pattern in (
    r'\]\(<?([^()\s>]+(?:\([^()]*\))?)>?(?:\s+"[^"]*")?\)', r'<(?:img|a)\b[^>]*?(?:src|href)="([^"]+)"',
    r'^\[[^\]]+\]:\s*(\S+)') for match in re.finditer(pattern, text, re.MULTILINE)]
  return [(text.count('\n', 0, position) + 1, target) for position, target in sorted(found)]


def inline_code(text):
  """Return [(line, code)] of the code in backquotes in the prose of a page, roles such as {py:func} apart."""
  text = prose(text)
  return [(text.count('\n', 0, match.start()) + 1, ' '.join(match[2].split()))
          for match in re.finditer(r'(?<![`}\\])(`+)(?!`)((?:[^`]|(?!\1)`)+?)\1(?!`)', text)]


def generated_pages():
  """The module that generates pages of the reference."""
  path = DOCS / '_extensions' / 'generated_pages.py'
  spec = importlib.util.spec_from_file_location('generated_pages', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def console_commands(body):
  """Return [(command, output)] of a console block; backslashes and here-documents continue a command."""
  found, lines = [], iter(body.splitlines())
  for line in lines:
    if line.startswith('$ '):
      command = line[2:]
      while command.endswith('\\'):
        command += '\n' + next(lines).removeprefix('> ')
      if document := re.search(r'<<-?\s*([\'"]?)(\w+)\1', command):
        more = ''
        while more != document[2]:
          more = next(lines)
          command += '\n' + more
      found.append((command, []))
    elif found:
      found[-1][1].append(line)
    elif line.strip():
      raise AssertionError(f'a console block must begin with "$ ", not with {line!r}')
  return [(command, '\n'.join(output)) for command, output in found]
