"""The released weights of all four sizes on the zero-shot suite: --config=configs/gpt2_released_sweep.py

Tasks, data     as in gpt2_zero_shot.py
Expect          the paper's Figure 1 and its Table 3, which stand beside ours in the report
Meant for       a GPU of 16 GB or more

The weights are downloaded from the Hugging Face Hub, if they are not in its cache.
"""

from configs import gpt2_zero_shot

SIZES = 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl'


def get_config(size=''):
  config = gpt2_zero_shot.get_config()
  config.job = 'evaluate' if size else 'sweep'
  config.init_from = size
  config.sweep.sizes = SIZES
  return config
