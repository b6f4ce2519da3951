"""Parts of messages: plurals, and suggestions for misspelled names."""


def plural(n, noun, several=''):
  """Return '1 example', '2,000 examples'.

  Args:
    n: an integer.
    noun: in the singular.
    several: the plural, if it is not the singular with -s, or with -ies for -y.
  """
  if n == 1:
    return f'1 {noun}'
  regular = f'{noun[:-1]}ies' if noun.endswith('y') and noun[-2:-1] not in 'aeiou' else f'{noun}s'
  return f'{n:,} {several or regular}'


def nearest_name(name, known):
  """Return the known name that is nearest to `name`; '' if none is near.

  A name is near if it differs by at most one edit for every four characters (of the longer one), or by one
  edit. A dotted name is also near if its last part is near the last part of `name`, or starts with its words.
  Of several names, the one with the fewest edits is returned.

  Args:
    name: as written by the user.
    known: iterable of names.
  """
  candidates = []
  for candidate in known:
    edits, last = distance(name, candidate), _distance_of_parts(_last(name), _last(candidate))
    if _near(edits, name, candidate) or ('.' in candidate and _near(last, _last(name), _last(candidate))):
      candidates.append((last if '.' in candidate else edits, edits, candidate))
  return min(candidates, default=(0, 0, ''))[2]


def _last(name):
  return name.rpartition('.')[2]


def _near(edits, a, b):
  return edits <= max(1, max(len(a), len(b)) // 4) and edits < min(len(a), len(b))


def _distance_of_parts(a, b):
  """`distance`, but 0 if b starts with the words of a: `every` may mean `every_steps`."""
  return 0 if b.startswith(f'{a}_') else distance(a, b)


def distance(a, b):
  """Return the edit distance of two texts, with transpositions of neighbours (optimal string alignment)."""
  before, above = [], list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    row = [i]
    for j, y in enumerate(b, 1):
      edits = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y))
      if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
        edits = min(edits, before[j - 2] + 1)
      row.append(edits)
    before, above = above, row
  return above[-1]


def suggestion(name, known, what):
  """Return the end of a message: ': did you mean NAME?' if a known name is near, else a list of the names.

  Args:
    name: as written by the user.
    known: list of names.
    what: introduction of the list, "the tasks are" for example.
  """
  near = nearest_name(name, known)
  return f': did you mean {near}?' if near else f'; {what} {", ".join(known)}'
