"""What a compiled program sends between devices, read from its HLO text."""

import re
from collections import Counter, namedtuple

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
BITS = {'pred': 8, 's8': 8, 'u8': 8, 'bf16': 16, 'f16': 16, 'f32': 32, 's32': 32, 'u32': 32, 'f64': 64}

# kind; sizes: bytes of each array that comes out; times: how often it runs a step; depth: loops around it.
Collective = namedtuple('Collective', 'kind sizes times depth')


def collectives(text):
  """[Collective] of a program, those in loops counted as often as the loop runs (ValueError: not known)."""
  bodies, entry = {}, None
  for line in text.splitlines():
    if start := re.match(r'(ENTRY )?%?([\w.-]+) .*\{$', line):
      body = bodies[start[2]] = []
      entry = start[2] if start[1] else entry
    elif bodies:
      body.append(line)
  return list(_in(bodies, entry, 1, 0))


def _in(bodies, name, times, depth):
  for line in bodies[name]:
    if sent := re.search(rf'= (.*?) ({"|".join(KINDS)})(-start)?\(', line):
      yield Collective(sent[2], _sizes(sent[1]), times, depth)
    elif loop := re.search(r' while\(.*body=%?([\w.-]+)', line):
      trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
      if not trips:
        raise ValueError(f'a loop whose length is not known: {line[:200]}')
      yield from _in(bodies, loop[1], times * int(trips[1]), depth + 1)
    else:
      for called in re.findall(r'(?:to_apply|calls)=%?([\w.-]+)', line):
        yield from _in(bodies, called, times, depth)


def _sizes(text):
  found = []
  for kind, dimensions in re.findall(r'\b([a-z]+\d*)\[([\d,]*)\]', text):
    size = BITS[kind] // 8
    for dimension in filter(None, dimensions.split(',')):
      size *= int(dimension)
    found.append(size)
  return found


def totals(found):
  """{kind: bytes a step} of a list of Collective."""
  count = Counter()
  for one in found:
    count[one.kind] += one.times * sum(one.sizes)
  return dict(count)
