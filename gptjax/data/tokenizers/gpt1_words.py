"""Splits text into the words of GPT-1's tokenizer: a reimplementation of the English rules of spaCy.

The released code used spaCy's model `en`, which no longer exists; it applied the rules below, with the
exceptions for English. The rules here assume text from `gpt1_text.standardize`, which separates
PADDED_CHARACTERS and only leaves straight quotes; rules that only apply to other text are omitted. Letters
are those of Unicode, where spaCy lists ranges. On 10.3 million words of novels, Wikipedia, news (also French)
and Python's documentation, the result differs from blank English of spaCy 3.8 in 110 words, such as `b''`:
spaCy 3 joins them after the split (its pull request 4259, of 2019), which earlier versions did not.
"""

import functools

import regex

PADDED_CHARACTERS = '-~!";?+,)(/*[]}{|_'

_QUOTES = '\'"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧'
_PUNCTUATION = '…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪'
_MONEY = r'US\$|C\$|A\$|[$£€¥฿₽﷼₠-₿]'
_UNITS = (
  'km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg '
  't lb oz kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ '
  'дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ '
  'гб Тб ТБ тб')
_LOWER, _UPPER, _LETTER = r'\p{Ll}\p{Lo}', r'\p{Lu}\p{Lo}', r'\p{L}'


def _any(characters):
  return '[' + regex.escape(characters) + ']'


# Removed repeatedly from the start and the end of a word.
_PREFIX = regex.compile(rf'§|%|=|—|–|\+(?![0-9])|……|\.\.+|{_any(_PUNCTUATION)}|{_any(_QUOTES)}|{_MONEY}'
                        r'|\p{So}')
_SUFFIX = regex.compile('|'.join(f'(?:{rule})$' for rule in (
  r'……|\.\.+', _any(_PUNCTUATION), _any(_QUOTES), r'\p{So}', "'[sS]|’[sS]|—|–", r'(?<=[0-9])\+',
  r'(?<=°[FfCcKk])\.', rf'(?<=[0-9])(?:{_MONEY})',
  rf'(?<=[0-9])(?:{"|".join(_UNITS.split())})',
  rf'(?<=[0-9{_LOWER}%²\-+|.{regex.escape(_PUNCTUATION + _QUOTES)}](?<!\.))\.',
  rf'(?<=[{_UPPER}][{_UPPER}])\.')))
MAX_SUFFIX_LENGTH = 4
# Separators within the rest of the word.
_INFIX = regex.compile(
  rf'\.\.+|…|\p{{So}}|(?<=[0-9])[+\-*^](?=[0-9-])'
  rf'|(?<=[{_LOWER}{regex.escape(_QUOTES)}])\.(?=[{_UPPER}{regex.escape(_QUOTES)}])'
  rf'|(?<={_LETTER}),(?={_LETTER})|(?<=[{_LETTER}0-9])[-–—~](?={_LETTER})'
  rf'|(?<=[{_LETTER}0-9])[:<>=/](?={_LETTER})')
# Addresses are not split: IP numbers or a host, optionally with text before an @, a port, and a path. One
# pattern would take time quadratic in the number of labels.
_AT = regex.compile('@')
_REST = r'(?::\d{2,5})?(?:[/?#]\S*)?$'
_AFTER_HOST = regex.compile(_REST)
_NUMBERS = regex.compile(r'\d{1,3}(?:\.\d{1,3}){3}' + _REST)
_INNER = r'A-Za-z0-9\u00a1-\uffff'
_HOST = regex.compile(rf'[{_INNER}_.\-{_LOWER}]*+')
_LABEL = regex.compile(rf'(?:[{_INNER}][{_INNER}_-]{{0,62}})?[{_INNER}]')
_TOP = regex.compile(rf'[{_LOWER}]{{2,63}}')

# Words that no rule splits.
_NEVER_SPLIT = '''
  ' '' 'S 'd 'em 'll 'nuff 're 's 'bout 0.0 0.o 8D :0 :1 :3 :> :D :O :P :X :o :p :x <.< <3 <33
  <333 <space>
  =3 =D >.< >.> >:o O.O O.o V.V XD XDD o.0 o.O o.o v.v xD xDD v.s. vs. E.G. E.g. I.E. I.e. e.g. i.e.
  a.m. p.m. D.C. N.C. N.D. N.H. N.J. N.M. N.Y. Ph.D. S.C. Adm. Ak. Ala. Apr. Ariz. Ark. Aug. Bros.
  Calif. Co. Colo. Conn. Corp. Dec. Del. Dr. Feb. Fla. Ga. Gen. Gov. Ia. Id. Ill. Inc. Ind. Jan. Jr.
  Jul. Jun. Kan. Kans. Ky. La. Ltd. Mar. Mass. Md. Messrs. Mich. Minn. Miss. Mo. Mont. Mr. Mrs. Ms.
  Mt. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. Prof. Rep. Rev. Sen. Sep. Sept. St. Tenn. Va.
  Wash. Wis.
  co. ä. ö. ü. ಠ︵ಠ'''
# With a lower-case or a capital first letter.
_NEVER_SPLIT_OR_CAPITALIZED = "ma'am o'clock doin' goin' havin' lovin' nothin' nuthin' ol' somethin'"
_CLIPPED = 'cause cos coz cuz'  # after an apostrophe
# Contractions: first words: endings. Each also without apostrophes.
_CONTRACTED = {
  'are dare has have is was were ai': "n't",
  'ca did do does had may need ought sha wo': "n't n't've",
  'could might must should would': "'ve n't n't've",
  'he it she that this': "'d 'd've 'll 'll've 's",
  'there what when where who why how': "'d 'd've 'll 'll've 're 's 've",
  'these they those we you': "'d 'd've 'll 'll've 're 've",
  'i': "'d 'd've 'll 'll've 'm 'ma 've",
  'not': "'ve", 'let': "'s"}
# Contractions without apostrophes that are other words.
_OTHER_WORDS = {'hell', 'ill', 'its', 'lets', 'shed', 'shell', 'well', 'were', 'whore'}
_SPLIT = "c'm on|how 'd 'y|can not|gon na|got ta"
_SPLIT_SMALL = "y' all|y all"


@functools.cache
def _exceptions():
  """Return {word: its parts} of the words that are looked up before any rule applies."""
  exceptions = {word: (word,) for word in _NEVER_SPLIT.split()}
  exceptions |= {f'{letter}.': (f'{letter}.',) for letter in 'abcdefghijklmnopqrstuvwxyz'}
  for word in _NEVER_SPLIT_OR_CAPITALIZED.split():
    exceptions |= {form: (form,) for form in (word, word.capitalize())}
  for word in _CLIPPED.split():
    exceptions |= {form: (form,) for form in (f"'{word}", f"'{word.capitalize()}")}
  for firsts, rests in _CONTRACTED.items():
    for first in firsts.split():
      for rest in rests.split():
        parts = (first, *regex.findall(r"n't|'[a-z]+?(?=a$|'|$)|a$", rest))
        bare = tuple(part.replace("'", '') for part in parts)
        exceptions |= _with_capital(parts)
        if ''.join(bare) not in _OTHER_WORDS:
          exceptions |= _with_capital(bare)
  for parts in _SPLIT.split('|'):
    exceptions |= _with_capital(parts.split())
  exceptions |= {''.join(parts.split()): tuple(parts.split()) for parts in _SPLIT_SMALL.split('|')}
  for hour in range(1, 13):
    exceptions |= {f'{hour}{half}': (str(hour), half) for half in ('am', 'pm', 'a.m.', 'p.m.')}
  return exceptions | {f'°{unit}.': ('°', unit, '.') for unit in 'CFKcfk'}


def _with_capital(parts):
  first, *rest = parts
  return {''.join((form, *rest)): (form, *rest) for form in (first, first.capitalize())}


@functools.cache
def _longest_exception():
  return max(map(len, _exceptions()))


def split_words(chunk):
  """Return the words of a chunk of text without white space, a list of str, in linear time."""
  front, back = [], []
  start, stop, size = 0, len(chunk), -1
  while start < stop and not _excepted(chunk, start, stop) and stop - start != size:
    size = stop - start
    prefix = match.end() if (match := _PREFIX.match(chunk, start, stop)) else start
    if prefix > start and _excepted(chunk, prefix, stop):
      front.append(chunk[start:prefix])
      start = prefix
      break
    suffix = _suffix(chunk, prefix, stop)
    if suffix < stop and _excepted(chunk, start, suffix):
      back.append(chunk[suffix:stop])
      stop = suffix
      break
    if prefix > start:
      front.append(chunk[start:prefix])
    if suffix < stop:
      back.append(chunk[suffix:stop])
    start, stop = prefix, suffix
  return front + _split_infixes(chunk[start:stop], _exceptions()) + back[::-1]


def _excepted(chunk, start, stop):
  """Whether a part of a chunk is an exception; long parts are not copied."""
  return stop - start <= _longest_exception() and chunk[start:stop] in _exceptions()


def _suffix(chunk, start, stop):
  """Return the start of the suffix of chunk[start:stop]; `stop` if there is none.

  A suffix is a run of dots of any length, or at most MAX_SUFFIX_LENGTH characters, and depends on at most as
  many characters before it.
  """
  dots = stop
  while dots > start and chunk[dots - 1] == '.':
    dots -= 1
  first = max(start, stop - 2 * MAX_SUFFIX_LENGTH)
  match = _SUFFIX.search(chunk[first:stop], max(0, stop - MAX_SUFFIX_LENGTH - first))
  found = first + match.start() if match else stop
  return min(found, dots) if stop - dots > 1 else found


def _split_infixes(chunk, exceptions):
  if not chunk:
    return []
  if chunk in exceptions:
    return list(exceptions[chunk])
  if _is_address(chunk):
    return [chunk]
  found, start = [], 0
  for match in _INFIX.finditer(chunk):
    if match.start() > start:
      found += [chunk[start:match.start()], match.group()]
      start = match.end()
  return found + [chunk[start:]] * (start < len(chunk))


def _is_address(chunk):
  """Whether a host starts the chunk, or follows an @ in it, and the whole rest belongs to the address."""
  starts = [0, *(match.end() for match in _AT.finditer(chunk, 1))]
  return any(_NUMBERS.match(chunk, start) or _begins_host(chunk, start) for start in starts)


def _begins_host(chunk, start):
  stop = _HOST.match(chunk, start).end()
  *labels, top = chunk[start:stop].split('.')
  # The rest is matched last: it can be long, and by then a match ends the search.
  return (labels and _TOP.fullmatch(top) and all(map(_LABEL.fullmatch, labels))
          and _AFTER_HOST.match(chunk, stop))
