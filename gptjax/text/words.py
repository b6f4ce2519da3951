"""Parts of messages: plurals, and suggestions for misspelled names."""


def plural(n, noun, plural_form=''):
  """Return '1 example', '2,000 examples'.

  Args:
    n: an integer.
    noun: in the singular.
    plural_form: an irregular plural; default: -s, or -ies after a consonant and y.
  """
  if n == 1:
    return f'1 {noun}'
  regular = f'{noun[:-1]}ies' if noun.endswith('y') and noun[-2:-1] not in 'aeiou' else f'{noun}s'
  return f'{n:,} {plural_form or regular}'


def nearest_name(name, candidates):
  """Return the candidate that is nearest to `name`; '' if none is near.

  A candidate is near if it differs by at most one edit for every four characters (of the longer name), or by
  one edit, and by fewer edits than the shorter name has characters; or if `name` abbreviates its words. A
  dotted candidate is also near if its last part is near the last part of `name`, or starts with its words. Of
  several, dotted names are compared by the edits of the last part, others by all edits; ties by all edits.

  Args:
    name: as written by the user.
    candidates: iterable of names.
  """
  near = []
  for candidate in candidates:
    edits, last = distance(name, candidate), _distance_of_parts(_last(name), _last(candidate))
    near_in_section = '.' in candidate and _near(last, _last(name), _last(candidate))
    if near_in_section or _near(edits, name, candidate) or _abbreviates(name, candidate):
      near.append((last if '.' in candidate else edits, edits, candidate))
  return min(near, default=(0, 0, ''))[2]


def _last(name):
  return name.rpartition('.')[2]


def _near(edits, a, b):
  return edits <= max(1, max(len(a), len(b)) // 4) and edits < min(len(a), len(b))


def _abbreviates(a, b):
  """Whether each word of a, of at least three letters, starts that word of b: val_fraction."""
  a, b = a.lstrip('-').split('_'), b.lstrip('-').split('_')
  return len(a) == len(b) and all(len(x) >= 3 and y.startswith(x) for x, y in zip(a, b, strict=True))


def _distance_of_parts(a, b):
  """`distance`, but 0 if b starts with the words of a: `every` may mean `every_steps`."""
  return 0 if b.startswith(f'{a}_') else distance(a, b)


def distance(a, b):
  """Return the edit distance of two texts, with transpositions of neighbours (optimal string alignment)."""
  two_rows_up, previous = [], list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    row = [i]
    for j, y in enumerate(b, 1):
      edits = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (x != y))
      if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
        edits = min(edits, two_rows_up[j - 2] + 1)
      row.append(edits)
    two_rows_up, previous = previous, row
  return previous[-1]


def suggestion(name, known, list_intro):
  """Return the end of a message: ': did you mean NAME?' if a known name is near, else a list of the names.

  Args:
    name: as written by the user.
    known: list of names.
    list_intro: introduction of the list, "the tasks are" for example.
  """
  near = nearest_name(name, known)
  return f': did you mean {near}?' if near else f'; {list_intro} {", ".join(known)}'
