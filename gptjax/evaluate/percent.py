"""How metrics are displayed: fractions in files are printed in per cent, all else unchanged.

Accuracy, exact match, F1 and correlations are fractions in files, as is the share of examples that are
`correct`. Perplexity, bits, BLEU and ROUGE have the scale that papers print; counts are integers.
"""

import re

PERCENT_NOTE = 'Accuracies, F1, exact match and correlations in per cent'  # of a caption
_FRACTIONS = re.compile(r'(^|/)(ceiling_)?(accuracy|exact_match|f1|matthews|pearson|spearman)(_|/|$)')
_SHARE_OR_COUNT = re.compile(r'correct(_|$)')


def display_scale(metric, value=0.0):
  """The factor by which a value of a metric is multiplied for display: 100 or 1.

  Args:
    metric: its name in a file, which may have a task or `test/` before it, or the name of a set after it.
    value: the value: `correct` may be a count, of type int, or a share.
  """
  share = _SHARE_OR_COUNT.match(metric) and isinstance(value, float)
  return 100 if share or _FRACTIONS.search(metric) else 1


def to_display(metric, value):
  """Return the number that tables show for a value; None for None."""
  scale = display_scale(metric, value)
  return value if value is None or scale == 1 else scale * value
