"""The metrics of GPT-1's tasks, as fractions: 1 is perfect (the papers print per cent).

Each is a function of predictions and true values, both float or int [n].
"""

import numpy as np


def accuracy(predicted, true):
  """Fraction of predictions that are correct."""
  return float(np.mean(predicted == true))


def matthews(predicted, true):
  """Matthews correlation of two classes: Pearson's correlation of 0 and 1; 0 if either is constant."""
  return pearson(predicted, true)


def f1(predicted, true):
  """Harmonic mean of precision and recall of class 1; 0 if class 1 is neither predicted nor true."""
  hits = np.sum((predicted == 1) & (true == 1))
  total = np.sum(predicted == 1) + np.sum(true == 1)
  return float(2 * hits / total) if total else 0.0


def pearson(predicted, true):
  """Linear correlation; 0 if either is constant."""
  x, y = (np.asarray(values, np.float64) - np.mean(values, dtype=np.float64) for values in (predicted, true))
  norm = np.sqrt((x @ x) * (y @ y))
  return float(np.clip(x @ y / norm, -1, 1)) if norm else 0.0


def spearman(predicted, true):
  """Correlation of ranks; tied values share their mean rank."""
  return pearson(_ranks(predicted), _ranks(true))


def _ranks(values):
  _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[which]


METRICS = {'accuracy': accuracy, 'matthews': matthews, 'f1': f1, 'pearson': pearson, 'spearman': spearman}
