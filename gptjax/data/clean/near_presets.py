"""The presets of near duplicates (--near), and the flags that change their numbers.

A preset trades recall for precision: `near_duplicates.recall` is the share of pairs that it removes, by
similarity. The standard preset removes over 90 % of the pairs with a similarity of 0.8, and under 0.1 % of
those with 0.6. Its threshold is 0.75 because the similarity that a signature of 120 entries estimates has a
standard error of 0.037: a threshold of 0.8 removes about half of the pairs with 0.8.
"""

from typing import NamedTuple

from gptjax.errors import InputError


class Near(NamedTuple):
  """Which pairs of documents are near duplicates."""
  bands: int         # a pair is compared if one of its bands is equal
  rows: int          # entries of the signature per band
  threshold: float   # least share of equal entries of a near duplicate, in [0, 1]


PRESETS = {
  'standard': Near(20, 6, 0.75),
  'strict': Near(20, 6, 0.8),     # the estimate itself is 0.8 or more
  'precise': Near(32, 8, 0.76),   # a steeper curve, for twice the time and space
  'fineweb': Near(14, 8, 0.0)}    # FineWeb's (Penedo et al. 2024): a pair with an equal band is enough
MAX_ENTRIES = 4096                # of a signature


def resolve(preset=None, bands=None, rows=None, threshold=None):
  """Return the Near of a preset with the numbers that are given; None if no flag is given.

  Raises:
    ValueError: an unknown preset, or too many entries.
  """
  if preset and preset not in PRESETS:
    raise InputError(f'near = {preset!r} is not one of {", ".join(PRESETS)}')
  given = {'bands': bands, 'rows': rows, 'threshold': threshold}
  given = {name: value for name, value in given.items() if value is not None}
  if not preset and not given:
    return None
  near = PRESETS[preset or 'standard']._replace(**given)
  if near.bands * near.rows > MAX_ENTRIES:
    raise InputError(f'near_bands x near_rows = {near.bands} x {near.rows} entries of a signature must be at '
                     f'most {MAX_ENTRIES:,}')
  return near


def describe(near):
  """Return the numbers in words, for manifests."""
  return f'{near.bands} bands of {near.rows}, threshold {near.threshold!r}'
