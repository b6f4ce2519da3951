"""Samples as in the appendix of the GPT-2 paper: python -m gptjax.evaluate.samples

  contexts       Contexts for samples: the beginnings of random documents of a corpus (GPT-2, Tables 7 to 12).
  continuations  Continuations of prompts, in batches that are saved at once, with their log probabilities.
  public_texts   Texts for samples: the paper's prompt about unicorns, and known texts in the public domain to
                 recite.
  recital        Recital: how far a model recites a known text from memory (GPT-2, section 8.2).
  store          The samples of a model on disk, `WORKDIR/samples/KIND.jsonl`, to which each batch is appended
                 at once.
"""
