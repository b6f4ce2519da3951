"""Recall of `--clean=webtext` for pairs of similar documents: python -m gptjax.benchmark near_duplicates

For each preset of --near and each similarity (the Jaccard index of the sets of five-word phrases), measures
pairs of documents of 1,000 such phrases: the second document starts like the first and continues with other
words. No two pairs share a phrase. Beside the measured share of removed pairs is the one that
`near_duplicates.recall` computes.
"""

import argparse

from gptjax.command import bars, run
from gptjax.command.flag_types import Listed, integer, real
from gptjax.data.clean import near_duplicates
from gptjax.data.clean.near_presets import PRESETS

PHRASES = 1000  # of each document
BLOCK = 200     # documents whose signatures are computed together
SIMILARITIES = [0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]


def make_pairs(similarity, n):
  """[text]: n documents, each followed by a document with the given similarity to it."""
  shared = round(2 * PHRASES * similarity / (1 + similarity))
  length, texts = PHRASES + near_duplicates.SHINGLE_WORDS - 1, []
  for i in range(n):
    first = [f'{i}:{at}' for at in range(length)]
    same = shared + near_duplicates.SHINGLE_WORDS - 1 if shared else 0
    texts += [' '.join(first), ' '.join([*first[:same], *(f'{i}.{at}' for at in range(same, length))])]
  return texts


def recall(texts, near):
  """The share of pairs, of which the first document is followed by the second, that are near duplicates."""
  found = 0
  for start in range(0, len(texts), BLOCK):
    signatures = near_duplicates.signatures([text.split() for text in texts[start:start + BLOCK]], near)
    keys = near_duplicates.band_keys(signatures, near)
    compared = (keys[::2] == keys[1::2]).any(1)
    found += int((compared & near_duplicates.is_near(signatures[::2], signatures[1::2], near)).sum())
  return found / (len(texts) // 2)


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark near_duplicates', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--near', choices=list(PRESETS), action='append',
                      help='a preset of prepare; repeatable; default: all')
  parser.add_argument('--pairs', type=integer(1, 100_000), default=1000, help='of each similarity')
  parser.add_argument('--similarities', type=Listed(real(0, 1)), default=SIMILARITIES)
  flags = parser.parse_args(argv)
  presets = {name: PRESETS[name] for name in flags.near or PRESETS}
  print(f'{flags.pairs:,} pairs of each similarity: removed, and computed\n'
        f'{"similarity":>10}{"".join(f"{name:>17}" for name in presets)}')
  for similarity in bars.bar(flags.similarities, unit='row', leave=False):
    texts = make_pairs(similarity, flags.pairs)
    cells = [f'{recall(texts, near):>9.3f}{near_duplicates.recall(similarity, near):>8.3f}'
             for near in presets.values()]
    print(f'{similarity:>10.2f}{"".join(cells)}')
  return 0
