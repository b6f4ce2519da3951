"""GPT-2 124M on 10 G tokens of FineWeb, as llm.c trains it (scripts/run_gpt2_124M.sh).

Parameters      124,439,808
Tokens per step 524,288 (512 sequences of 1,024)
Tokens          9.9 G (18,865 steps), one pass
Expect          held-out loss 3.28 to 3.29 (llm.c, discussion 481; modded-nanogpt, README); the released
                weights have 3.425 there, without having seen it (llm.c, dev/vislog.ipynb)
Meant for       eight A100s of 80 GB, 94 minutes in llm.c; for fewer or smaller GPUs lower
                train.microbatch_size, the sequences that all devices process at a time

`launch/recipes/fineweb.sh` makes the corpus of llm.c's shards, so tokens, their order in the shards, and the
validation tokens are those of the published losses. Like gpt2_small.py except for the fields below.
"""

from configs import gpt2_small


def get_config():
  return on_fineweb(gpt2_small.get_config())


def on_fineweb(config):
  """Return a config of any size with the text, the length and the schedule of this one."""
  config.data.update(dict(
    corpus='corpora/fineweb10B', reference='fineweb',
    recipe="--source='parquet:hf://datasets/HuggingFaceFW/fineweb@9bb295ddab0e05d785b879661af7260fed5140fc/"
           "sample/10BT/*.parquet' --tokenizer=gpt2 --workers=16 --validation_fraction=0.01 "
           '--on_error=skip',
    recipe_cost='the sample of FineWeb, read from Hugging Face: 31 GB to download, 47 GB of text, 10 G '
                'tokens, 20 GB on disk, two hours divided by the number of cores; or adopt the shards of '
                'llm.c, as launch/recipes/fineweb.sh does'))
  config.train.update(dict(steps=18_865))
  config.optimizer.update(dict(warmup_steps=700, final_fraction=0.0))
  # The first 10,485,760 validation tokens, as llm.c: 160 batches of 64 sequences.
  config.eval.update(dict(every_steps=250, steps=160, batch_size=64))
  if config.model.n_layer == 12:
    config.train.microbatch_size = 512
  return config
