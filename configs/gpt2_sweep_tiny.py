"""Four small GPT-2s on the documentation that ships with Python: --config=configs/gpt2_sweep_tiny.py

Parameters      0.2, 0.5, 1.1 and 2.6 M
Tokens per step 4,096 (32 sequences of 128)
Expect          held-out losses that fall with size (docs/howto/sweeps.md), in less than 20 minutes
Meant for       two CPU cores

The first size prepares the corpus, which all share; nothing is downloaded. `--config.eval.data_dir=` names
the published files of LAMBADA, WSC273, WikiText-2 and Natural Questions; tasks without files are not run.
"""

from configs import quickstart

# Layers and width; heads of 32.
SIZES = {'0.2M': (2, 64), '0.5M': (3, 96), '1.1M': (4, 128), '2.6M': (5, 192)}


def get_config(size=''):
  config = quickstart.get_config()
  config.job = 'pretrain' if size else 'sweep'
  config.sweep.update(dict(sizes=tuple(SIZES),
                           tasks='held_out,lambada,winograd,wikitext2,natural_questions'))
  n_layer, n_embd = SIZES[size or '2.6M']
  config.model.update(dict(n_layer=n_layer, n_head=n_embd // 32, n_embd=n_embd))
  config.data.corpus = 'corpora/python-2048'
  config.eval.update(dict(ngrams=False, limit=200))
  config.log.sample_tokens = 0
  return config
