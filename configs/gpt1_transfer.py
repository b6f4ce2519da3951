"""GPT-1's Figure 2, left: --config=configs/gpt1_transfer.py[:TASK,TASK,...]

The embeddings and the first 0 .. n blocks of `--config.init_from=` taken over, then fine-tuned on RACE and
MultiNLI unless others are named; WORKDIR/transfer.png plots scores against layers.
"""

from configs import gpt1_finetune


def get_config(tasks='race,mnli'):
  config = gpt1_finetune.get_config(tasks)
  config.finetune.update(dict(study='transfer', train_examples=1000))
  return config
