"""GPT-1's Table 5: --config=configs/gpt1_ablations.py[:TASK,TASK,...]

With and without the auxiliary loss, without pretraining, and the LSTM, on the eight tasks of the table unless
others are named. `--config.init_from=` and `--config.finetune.lstm_from=` name the pretrained weights.
"""

from configs import gpt1_finetune


def get_config(tasks='cola,sst2,mrpc,stsb,qqp,mnli,qnli,rte'):
  config = gpt1_finetune.get_config(tasks)
  config.finetune.study = 'ablations'
  return config
