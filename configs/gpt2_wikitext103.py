"""GPT-2 124M on WikiText-103, a text of 0.1 G words that it reads twenty times.

Parameters      124,439,808
Tokens per step 65,536 (64 sequences of 1,024)
Tokens          2.4 G, 20 passes over about 0.12 G
Expect          held-out loss about 2.9: 2.92 for a Transformer of 125M, perplexity 18.6 per token (Poli et
                al. 2023, table 4.3), whose schedule differs; the released weights have 3.42, without having
                seen it (llm.c, issue 340)
Meant for       one GPU of 40 GB or more

Dropout 0.1 and the best checkpoint, because it is too little text for so many weights. Like gpt2_small.py
except for the fields below. Held out is the end of the training text; `launch/recipes/wikitext103.sh score`
measures the validation set of WikiText-103, as the published losses.
"""

from configs import gpt2_small


def get_config():
  config = gpt2_small.get_config()
  config.data.update(dict(
    corpus='corpora/wikitext103-gpt2', reference='wikitext103',
    recipe="--source='text:wikitext-103-raw/wiki.train.raw' --tokenizer=gpt2 --validation_fraction=0.005",
    recipe_cost='WikiText-103, which launch/recipes/wikitext103.sh downloads: 0.5 GB of text, 0.12 G tokens, '
                '0.24 GB on disk, a few minutes'))
  config.model.dropout = 0.1
  config.train.update(dict(steps=0, epochs=20.0, batch_size=64, microbatch_size=16))
  config.optimizer.update(dict(warmup_steps=1000, final_fraction=0.0))
  config.checkpoint.every_steps = 1000
  config.eval.update(dict(every_steps=1000, steps=0))
  return config
