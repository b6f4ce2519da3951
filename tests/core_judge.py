"""CORE one example at a time with transformers: the judge of gptjax's batches with shared prefixes."""

import random

import numpy as np
from torch_models import torch, transformers


class CoreJudge:
  """Weights in a folder, in transformers.

  Args:
    folder: of the weights and the tokenizer.
  """

  def __init__(self, folder):
    self.model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    self.first, self.n_ctx = self.tokenizer.bos_token_id, self.model.config.max_position_embeddings

  def encode(self, text):
    return [self.first, *self.tokenizer(text, split_special_tokens=True)['input_ids']]

  def answers(self, kind, items, shots, delimiter, questions=None):
    """[whether each item is answered correctly]; few-shot examples are drawn from the items."""
    return [self.is_correct(kind, (questions or items)[i], shown(items, i, shots), delimiter)
            for i in range(len(items))]

  def is_correct(self, kind, item, examples, delimiter):
    if kind == 'language_modeling':
      before = ''.join(e['context'].strip() + delimiter + e['continuation'] + '\n\n' for e in examples)
      before += item['context'].strip() + delimiter
      without, whole = self.encode(before.strip()), self.encode(before + item['continuation'])
      assert whole[:len(without)] == without
      log_probs, tokens = self.scored(whole, len(without))
      return bool((log_probs.argmax(-1) == torch.tensor(tokens)).all())
    if kind == 'multiple_choice':
      before = ''.join(e['query'] + delimiter + e['choices'][e['gold']] + '\n\n' for e in examples)
      rows = [self.encode(before + item['query'] + delimiter + choice) for choice in item['choices']]
      same = [len(set(column)) == 1 for column in zip(*rows)]
      starts = [same.index(False) if False in same else len(same)] * len(rows)
    else:
      before = ''.join(e['context_options'][e['gold']] + delimiter + e['continuation'] + '\n\n'
                       for e in examples)
      rows = [self.encode(before + context + delimiter + item['continuation'])
              for context in item['context_options']]
      same = [len(set(column)) == 1 for column in zip(*(row[::-1] for row in rows))]
      suffix = same.index(False) if False in same else len(same)
      starts = [len(row) - suffix for row in rows]
    losses = []
    for row, start in zip(rows, starts):
      log_probs, tokens = self.scored(row, start)
      losses.append(-log_probs[np.arange(len(tokens)), tokens].mean().item())
    return losses.index(min(losses)) == item['gold']

  @torch.no_grad()
  def scored(self, row, start):
    """(log p of every token at the places of the scored ones, the scored tokens)."""
    cut = max(0, len(row) - self.n_ctx)
    row, start = row[cut:], start - cut
    assert start > 0
    logits = self.model(torch.tensor([row])).logits[0, start - 1:-1]
    return torch.log_softmax(logits.double(), -1), row[start:]


def shown(items, i, shots):
  """The few-shot examples of item i."""
  others = [j for j in range(len(items)) if j != i]
  return [items[j] for j in random.Random(1234 + i).sample(others, shots)] if shots else []


def shuffled(items, limit):
  """The first items in the order of the protocol."""
  items = list(items)
  random.Random(1337).shuffle(items)
  return items[:limit]
