"""A small GPT-1 on sixteen novels, for two CPU cores; docs/sst2.sh fine-tunes it.

Parameters      0.3 M
Tokens per step 4,096 (64 sequences of 64)
Expect          a held-out loss of about 5 after eight minutes
Meant for       two CPU cores

A small version of the shape of GPT-1: norm after each sub-layer, dropout, tied embedding. 0.1 would be too
much dropout for one pass over so few words.
"""

from configs import gpt1


def get_config():
  config = gpt1.get_config()
  config.data.update(dict(
    corpus='corpora/books-2048', tokenizer='',
    recipe='--source=jsonl:books.jsonl.gz --tokenizer=train-bpe:2048 --validation_fraction=0.05',
    recipe_cost='sixteen novels, a JSON object with a field text per line: 25 MB of text, 7.5 M tokens, '
                '20 seconds'))
  config.model.update(dict(n_layer=3, n_head=2, n_embd=64, n_ctx=64, n_vocab=2048, dropout=0.05))
  config.train.update(dict(steps=1000, epochs=0.0, batch_size=64, microbatch_size=64))
  config.optimizer.update(dict(learning_rate=1e-3, warmup_steps=100))
  config.loss.chunk = 32
  config.checkpoint.update(dict(every_steps=250, keep=10))
  config.eval.update(dict(every_steps=250, steps=10, ngrams=True))
  config.log.every_steps = 25
  return config
