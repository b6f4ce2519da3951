"""A small GPT-2 on the documentation that ships with Python, on a laptop.

Parameters      2.2 M
Tokens per step 4,096 (32 sequences of 128)
Expect          a held-out loss of about 3.9, clearly below a bigram model's 4.5, in three minutes
Meant for       two CPU cores
"""

from configs import default


def get_config():
  config = default.get_config()
  config.data.source = 'python:'
  config.data.tokenizer = 'train-bpe:2048'
  config.data.validation_fraction = 0.05
  config.data.seq_len = 128
  config.model.update(dict(n_layer=4, n_head=4, n_embd=192, n_ctx=128, n_vocab=2048))
  config.loss.chunk = 32
  config.train.update(dict(steps=300, batch_size=32, microbatch_size=8))
  config.optimizer.update(dict(name='muon', learning_rate=4e-3, warmup_steps=50))
  config.eval.update(dict(every_steps=100, ngrams=True))
  config.checkpoint.every_steps = 200
  config.log.sample_tokens = 100
  return config
