"""GPT-1's Figure 2, right: the four heuristics on every checkpoint of pretraining, plotted against updates.

`--config.init_from=` names the workdir of a Transformer's run, `--config.finetune.lstm_from=` that of an
LSTM's; both must have kept their checkpoints, or the weights of these (`--config.checkpoint.keep_period=1000
--config.checkpoint.keep_period_weights_only`).
"""

from configs import gpt1_finetune


def get_config():
  config = gpt1_finetune.get_config()
  config.finetune.study = 'zero_shot'
  return config
