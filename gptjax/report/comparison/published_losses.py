"""Published losses by training text, for comparison with a run whose `config.data.reference` is that text.

Losses are in nats per token of the tokenizer of each text; those of another tokenizer cannot be compared.
"""

import math
from typing import NamedTuple


class PublishedLoss(NamedTuple):
  """A loss that others have measured.

  model: its size.
  loss: held-out, in nats per token.
  tokens: that it was trained on; None: unknown, or another text.
  trained: whether it was trained on this text; False: released weights, which have not seen it.
  source: who has published it, and where.
  """
  model: str
  loss: float
  tokens: float | None
  trained: bool
  source: str

  @property
  def label(self):
    return f'{self.model}, {"trained on it" if self.trained else "released weights"}'


class Text(NamedTuple):
  """A training text with its published losses.

  title: its name in plots.
  n_vocab: entries of the tokenizer of these losses.
  split: what they were measured on.
  losses: PublishedLosses.
  """
  title: str
  n_vocab: int
  split: str
  losses: tuple


GPT1_VOCAB, GPT2_VOCAB = 40_478, 50_257
SIZES = 'GPT-2 124M', 'GPT-2 355M', 'GPT-2 774M', 'GPT-2 1558M'


def _released(losses, source):
  return tuple(PublishedLoss(size, loss, None, False, source)
               for size, loss in zip(SIZES, losses, strict=True))


TEXTS = {
  'openwebtext': Text('OpenWebText', GPT2_VOCAB, '0.05 % of the documents, random batches', (
    PublishedLoss('GPT-2 124M', 2.85, 600_000 * 491_520, True,
                  'nanoGPT, README and config/train_gpt2.py: about 2.85 after 600,000 steps of 491,520'),
    *_released((3.12, 2.84, 2.67, 2.54), 'nanoGPT, README'))),
  'fineweb': Text('FineWeb, the sample of 10 G tokens', GPT2_VOCAB,
                  'the first 10,485,760 tokens of the shard fineweb_val_000000.bin', (
    PublishedLoss('GPT-2 124M', 3.29, 18_865 * 524_288, True,
                  'llm.c, discussion 481 (about 3.29) and scripts/run_gpt2_124M.sh (18,865 steps)'),
    PublishedLoss('GPT-2 124M', 3.28, 19_560 * 524_288, True,
                  "modded-nanogpt, README: llm.c's PyTorch trainer after 19,560 steps"),
    *_released((3.425, 3.083, 3.001, 2.831), 'llm.c, dev/vislog.ipynb'))),
  'bookscorpus': Text('BooksCorpus', GPT1_VOCAB, 'not stated', (
    PublishedLoss('GPT-1', math.log(18.4), None, True,
                  'Radford et al. 2018, section 4.1: perplexity 18.4 after 100 epochs'),)),
  'wikitext103': Text('WikiText-103, raw', GPT2_VOCAB, 'validation set; of Poli et al. not stated', (
    PublishedLoss('Transformer 125M', math.log(18.6), None, True,
                  'Poli et al. 2023 (Hyena), table 4.3: perplexity 18.6 per token'),
    *_released(map(math.log, (30.59, 22.35, 19.33, 17.46)),
               'llm.c, issue 340: perplexities 30.59, 22.35, 19.33, 17.46'))),
}
