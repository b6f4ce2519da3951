"""Small parts of messages: numbers with their nouns, and the name that somebody may have meant."""


def plural(n, noun, several=''):
  """'1 example', '2,000 examples'.

  Args:
    n: an integer.
    noun: in the singular.
    several: the plural, where it is not the singular and an s, or ies in place of a y.
  """
  if n == 1:
    return f'1 {noun}'
  regular = f'{noun[:-1]}ies' if noun.endswith('y') and noun[-2:-1] not in 'aeiou' else f'{noun}s'
  return f'{n:,} {several or regular}'


def nearest_name(name, known):
  """The known name that `name` may have been meant to be; '' if none is near.

  Near is a name that differs by at most one edit for every four characters (of the longer one), or by one;
  and a dotted one whose last part is near the last part of `name`, or begins with its words. Of several, that
  with the fewest edits.

  Args:
    name: what somebody wrote.
    known: iterable of names.
  """
  found = []
  for other in known:
    edits, last = distance(name, other), _distance_of_parts(_last(name), _last(other))
    if _near(edits, name, other) or ('.' in other and _near(last, _last(name), _last(other))):
      found.append((last if '.' in other else edits, edits, other))
  return min(found, default=(0, 0, ''))[2]


def _last(name):
  return name.rpartition('.')[2]


def _near(edits, one, other):
  return edits <= max(1, max(len(one), len(other)) // 4) and edits < min(len(one), len(other))


def _distance_of_parts(one, other):
  """`distance`, but none from the first words of a name to all of it: `every` may mean `every_steps`."""
  return 0 if other.startswith(f'{one}_') else distance(one, other)


def distance(one, other):
  """Edits that make one text of another: characters put in, left out or replaced, neighbours exchanged."""
  before, above = [], list(range(len(other) + 1))
  for i, a in enumerate(one, 1):
    row = [i]
    for j, b in enumerate(other, 1):
      edits = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
      if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
        edits = min(edits, before[j - 2] + 1)
      row.append(edits)
    before, above = above, row
  return above[-1]


def suggestion(name, known, what):
  """': did you mean NAME?' if a known name is near, else '; there are ...', for the end of a message.

  Args:
    name: what somebody wrote.
    known: list of names.
    what: before a list of them, "the tasks are" for example.
  """
  near = nearest_name(name, known)
  return f': did you mean {near}?' if near else f'; {what} {", ".join(known)}'
