"""Reference implementation of zero-shot tasks: PyTorch and transformers, one text at a time."""

import math

import numpy as np
from torch_models import torch, transformers, twin

N_CTX = 256


def make(folder, shared, whole=False):
  """Write a random GPT-2 for gptjax and for the reference; returns its folder.

  Args:
    whole: with GPT-2's own vocabulary; else with a small one, which takes a tenth of the time.
  """
  import gptjax
  from gptjax.data.tokenizers import byte_bpe, loading
  if whole:
    tokenizer = loading.load(f'gpt2:{shared / "bpe" / "gpt2"}')
  else:
    text = (shared / 'text' / 'wikitext-2' / 'wiki.test.raw').read_text()
    tokenizer = byte_bpe.train_bpe([text[-300_000:]], 3000)
  twin('gpt2', n_positions=N_CTX, vocab_size=tokenizer.n_vocab).save_pretrained(folder / 'weights')
  model, _ = gptjax.load(folder / 'weights')
  gptjax.save_pretrained(model, tokenizer, folder / 'made')
  return folder / 'made'


class Judge:
  """The same weights in transformers."""

  def __init__(self, folder):
    self.model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    self.n_vocab, self.n_ctx = self.model.config.vocab_size, self.model.config.max_position_embeddings
    self.end = self.tokenizer.eos_token_id

  def encode(self, text):
    return self.tokenizer(text, split_special_tokens=True)['input_ids']

  @torch.no_grad()
  def log_probs(self, ids, last=0):
    """float64[n - 1, v]: of what follows each token but the last; of the `last` ones alone, if not 0."""
    logits = self.model(torch.tensor([list(ids)[:-1]]), logits_to_keep=last).logits[0]
    return torch.log_softmax(logits.double(), -1).numpy()

  def continuation(self, before, after):
    """(log p of each token of `after`, whether each is the likeliest, their distributions)."""
    whole, given = self.encode(before + after), self.encode(before)
    n = len(whole) - len(given)
    assert whole[:len(given)] == given
    found = self.log_probs(whole[-self.n_ctx - 1:], n)
    wanted = whole[-n:]
    return found[np.arange(n), wanted], found.argmax(-1) == wanted, found

  def whole(self, text):
    """log p of a text after the end-of-text token."""
    ids = [self.end, *self.encode(text)]
    return self.log_probs(ids)[np.arange(len(ids) - 1), ids[1:]].sum()

  def stream(self, text, stride):
    """(-log p of a long text, tokens): windows of n_ctx, each scoring its new tokens."""
    ids = [self.end, *self.encode(text)]
    total, at = 0.0, 1
    while at < len(ids):
      stop = min(len(ids), self.n_ctx + 1 if at == 1 else at + stride)
      window = ids[max(0, stop - self.n_ctx - 1):stop]
      found = self.log_probs(window, stop - at)
      for place in range(at - stop, 0):
        total -= found[place, window[place]]
      at = stop
    return total, len(ids) - 1

  def greedy(self, text, max_tokens, stop='\n'):
    """The text that transformers generates after a prompt, up to the end of the line."""
    ids = self.encode(text)[-(self.n_ctx - max_tokens):]
    made = self.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(),
                               do_sample=False, max_new_tokens=max_tokens, pad_token_id=self.end,
                               eos_token_id=self.end)[0, len(ids):].tolist()
    made = made[:made.index(self.end)] if self.end in made else made
    return self.tokenizer.decode(made).partition(stop)[0].rstrip('\ufffd')


def perplexity(nats, units):
  return math.exp(nats / units)
