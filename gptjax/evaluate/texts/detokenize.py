"""Invertible de-tokenizers: natural text from the tokenized text of data sets, and back.

The GPT-2 paper (section 3.1) removes tokenization artifacts of data sets ("film , television", "did n't",
"1 @,@ 000") with invertible de-tokenizers, so that log p of the natural text is log p of the data set. Here
`retokenize(detokenize(text, style), style) == text` for every string.

`_join` applies a style's conventions to a line, `_split` reverts them. Where they are not inverse (a full
stop after an abbreviation, a stray quote), the smallest span that causes this is kept unchanged between
two MARKs, a character that does not occur in texts; `count_kept_spans` counts these spans.
"""

import functools
import re
from typing import NamedTuple

MARK, ESCAPE = '\u2060', '\u2061'  # word joiner, function application: both invisible
# Words that keep their full stop, which does not end a sentence.
ABBREVIATIONS = frozenset((
  'Mr', 'Mrs', 'Ms', 'Dr', 'St', 'Jr', 'Sr', 'No', 'Nos', 'vs', 'Lt', 'Col', 'Gen', 'Sgt', 'Capt', 'Cpl',
  'Maj', 'Rev', 'Prof', 'Gov', 'Sen', 'Rep', 'Hon', 'Adm', 'Cmdr', 'Ft', 'Mt', 'Co', 'Corp', 'Inc', 'Ltd',
  'Bros', 'Jan', 'Feb', 'Mar', 'Apr', 'Jun', 'Jul', 'Aug', 'Sep', 'Sept', 'Oct', 'Nov', 'Dec', 'Op', 'Art',
  'pp', 'Vol', 'etc'))


class Style(NamedTuple):
  """How a data set was tokenized.

  quotes: the tokens of an opening and of a closing double quote.
  no_space_before: tokens without a space before them in natural text.
  no_space_after: tokens without a space after them.
  no_space_around: tokens without a space on either side.
  clitics: endings that are separate tokens in the data set and belong to the previous word.
  infixes: {token: character} between two letters or digits, like '@-@' of WikiText.
  brackets: {token: character}, like '-LRB-'.
  space_padded: whether each line begins and ends with a space.
  """
  quotes: tuple = ()
  no_space_before: str = ''
  no_space_after: str = ''
  no_space_around: str = ''
  clitics: tuple = ()
  infixes: tuple = ()
  brackets: tuple = ()
  space_padded: bool = False


CLITICS = "'s", "'m", "'d", "'re", "'ve", "'ll"
PLAIN = Style()
WIKITEXT = Style(quotes=('"', '"'), no_space_before=',.;:!?)]%', no_space_after='([$', no_space_around='/',
                 clitics=(*CLITICS, "'t"),
                 infixes=(('@-@', '-'), ('@,@', ','), ('@.@', '.')), space_padded=True)
PTB = Style(no_space_before='%', no_space_after='$#', clitics=(*CLITICS, "n't"), space_padded=True)
BILLION = Style(quotes=('"', '"'), no_space_before=',.;:!?)]%', no_space_after='([$',
                clitics=(*CLITICS, "'t"))
BOOKS = Style(quotes=('``', "''"), no_space_before=',.;:!?)]%', no_space_after='([$',
              clitics=(*CLITICS, "n't"),
              brackets=(('-LRB-', '('), ('-RRB-', ')'), ('-LSB-', '['), ('-RSB-', ']')))


def detokenize(text, style):
  """Return the natural form of a tokenized text."""
  if style == PLAIN:
    return text
  *lines, last = text.replace(ESCAPE, ESCAPE + 'e').replace(MARK, ESCAPE + 'm').split('\n')
  # The text after the last line break is a line unless it is empty.
  return '\n'.join([_line(line, style) for line in lines] + [_line(last, style, is_last=True)])


def retokenize(text, style):
  """Return the text from which `detokenize` made this one."""
  if style == PLAIN:
    return text
  *lines, last = text.split('\n')
  lines = [_unline(line, style) for line in lines] + [_unline(last, style) if last else '']
  return '\n'.join(lines).replace(ESCAPE + 'm', MARK).replace(ESCAPE + 'e', ESCAPE)


def count_kept_spans(text):
  """Return the number of spans that `detokenize` kept unchanged in this text."""
  return text.count(MARK) // 2


def _line(line, style, is_last=False):
  if is_last and not line:
    return line
  bare = line[1:-1] if style.space_padded and len(line) > 1 and line[0] == line[-1] == ' ' else line
  if style.space_padded and line == ' ':
    bare = ''
  natural = _natural(bare, style)
  if _unline(natural, style) == line and (natural or not is_last):
    return natural
  # The padding differs from that of other lines.
  return f'{MARK}{MARK}{line}{MARK}{MARK}'


def _unline(line, style):
  if line.startswith(MARK * 2):
    return line[2:-2]
  pieces = line.split(MARK)  # every other piece is unchanged
  bare = ''.join(piece if i % 2 else _split(piece, style) for i, piece in enumerate(pieces))
  if not style.space_padded:
    return bare
  return f' {bare} ' if bare else ' '


def _natural(bare, style, open_quote=False):
  """Return the natural form of a line without its padding, or of a part of it, with MARKs where needed."""
  natural = _join(bare, style, open_quote)
  if _split(natural, style) == bare:
    return natural
  words = bare.split(' ')
  if len(words) == 1:
    return f'{MARK}{bare}{MARK}' if bare else bare
  middle = len(words) // 2
  still_open = open_quote ^ (sum(word in style.quotes for word in words[:middle]) % 2 == 1)
  halves = [_natural(' '.join(words[:middle]), style, open_quote),
            _natural(' '.join(words[middle:]), style, still_open)]
  natural = ' '.join(halves).replace(f'{MARK} {MARK}', ' ')  # merge adjacent kept spans
  back = ''.join(piece if i % 2 else _split(piece, style) for i, piece in enumerate(natural.split(MARK)))
  return natural if back == bare else f'{MARK}{bare}{MARK}'


def _join(line, style, open_quote):
  """Apply the style's conventions to a line; correct for nearly all lines."""
  brackets, infixes = dict(style.brackets), dict(style.infixes)
  words = [brackets.get(word, word) for word in line.split(' ')]
  pieces, joined = [], True  # joined: no space between the previous word and this one
  for i, word in enumerate(words):
    before = words[i - 1] if i else ''
    if word in infixes and before[-1:].isalnum() and words[i + 1:i + 2] and words[i + 1][:1].isalnum():
      pieces.append(infixes[word])
      joined = True
      continue
    quote = word in style.quotes
    closing = quote and (word != style.quotes[0] if len(set(style.quotes)) == 2 else open_quote)
    attached = (joined or closing or word == style.no_space_around != ''
                or (len(word) == 1 and word in style.no_space_before and _is_separable(before, word))
                or (word in style.clitics and before[-1:].isalpha()))
    pieces.append(('' if attached else ' ') + ('"' if quote else word))
    if quote:
      open_quote = not closing
    joined = (quote and not closing) or (word == style.no_space_around != '') or (
      len(word) == 1 and word in style.no_space_after)
  return ''.join(pieces)


def _is_separable(before, punctuation):
  """Whether punctuation after a word can be distinguished from the word's own."""
  return bool(before) and (punctuation != '.' or not _is_abbreviation(before))


def _is_abbreviation(word):
  return word[-1] == '.' or '.' in word or word in ABBREVIATIONS or (len(word) == 1 and word.isupper())


def _split(line, style):
  """The inverse of `_join`, for nearly all lines."""
  for pattern, replacement in _splits(style):
    line = pattern.sub(replacement, line)
  return line


@functools.cache
def _splits(style):
  """Return [(pattern, replacement)] that in this order split natural text into tokens."""
  rules, names = [], {chr(0xE000 + i): f' {token} ' for i, (token, _) in enumerate(style.infixes)}
  for private, (_, infix) in zip(names, style.infixes):  # later rules do not change private-use characters
    side = '[0-9]' if infix in ',.' else r'[^\W_]'
    rules.append((f'(?<={side}){re.escape(infix)}(?={side})', private))
  if len(set(style.quotes)) == 2:
    opening, closing = style.quotes
    rules += [(r'(?<![^ (\[])"(?=[^ ])', opening + ' '), ('(?<=[^ ])"', ' ' + closing),
              (f'(?<= {closing})(?=[^ ])', ' ')]
  both = style.no_space_around + ''.join(c for c in style.no_space_before + style.no_space_after
                                         if c not in '.$#')
  both += '"' if len(set(style.quotes)) == 1 else ''
  if both:
    rules += [(f'(?<=[^ ])(?=[{re.escape(both)}])', ' '), (f'([{re.escape(both)}])(?=[^ ])', r'\1 ')]
  signs = ''.join(c for c in style.no_space_after if c in '$#')
  if signs:
    rules.append((f'(?<![^ ])([{signs}])(?=[^ ])', r'\1 '))
  rules += [(f'(?<![^ ]){re.escape(bracket)}(?![^ ])', token) for token, bracket in style.brackets]
  if names:
    rules.append((f'[{"".join(names)}]', lambda match: names[match[0]]))
  if style.clitics:
    rules.append((f"(?<=[^\\W\\d_])({'|'.join(style.clitics)})(?![^ ])", r' \1'))
  if '.' in style.no_space_before:
    rules.append((r'(?<![^ ])([^ ]+)\.(?![^ ])', lambda m: m[0] if _is_abbreviation(m[1]) else m[1] + ' .'))
  return [(re.compile(pattern), replacement) for pattern, replacement in rules]
