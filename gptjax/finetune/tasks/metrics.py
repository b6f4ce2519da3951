"""The metrics of GPT-1's tasks, as fractions: 1 is perfect (the papers print per cent).

Each takes what is predicted and what is true, both float or int [n].
"""

import numpy as np


def accuracy(predicted, true):
  """Share of predictions that are right."""
  return float(np.mean(predicted == true))


def matthews(predicted, true):
  """Matthews correlation of two classes: what Pearson's is for 0 and 1; 0 where either has no variation."""
  return pearson(predicted, true)


def f1(predicted, true):
  """Harmonic mean of precision and recall of class 1; 0 where it is neither predicted nor there."""
  hits = np.sum((predicted == 1) & (true == 1))
  total = np.sum(predicted == 1) + np.sum(true == 1)
  return float(2 * hits / total) if total else 0.0


def pearson(predicted, true):
  """Linear correlation; 0 where either has no variation."""
  x, y = (np.asarray(values, np.float64) - np.mean(values, dtype=np.float64) for values in (predicted, true))
  norm = np.sqrt((x @ x) * (y @ y))
  return float(np.clip(x @ y / norm, -1, 1)) if norm else 0.0


def spearman(predicted, true):
  """Correlation of ranks, equals sharing their mean rank."""
  return pearson(_ranks(predicted), _ranks(true))


def _ranks(values):
  _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[which]


METRICS = {'accuracy': accuracy, 'matthews': matthews, 'f1': f1, 'pearson': pearson, 'spearman': spearman}
