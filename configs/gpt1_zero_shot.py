"""GPT-1's Figure 2, right: the four heuristics on every checkpoint of pretraining, plotted against updates.

`--config.init_from=` names the workdir of a Transformer's run, `--config.finetune.lstm_from=` that of an
LSTM's; both must have kept their checkpoints (`--config.checkpoint.keep=1000`).
"""

from configs import gpt1_finetune


def get_config():
  config = gpt1_finetune.get_config()
  config.finetune.study = 'zero_shot'
  return config
