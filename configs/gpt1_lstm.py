"""GPT-1's LSTM (section 5): one layer of 2,048 units in the Transformer's place, pretrained in the same way.

Parameters      56 M
Tokens per step 32,768 (64 sequences of 512)
Expect          a loss above the Transformer's; the paper gives none
Meant for       one GPU of 16 GB or more

Everything except the model is that of gpt1.py. How the paper's 2,048 units became logits is not stated: see
gptjax/model/lstm.py.
"""

from configs import gpt1


def get_config():
  config = gpt1.get_config()
  config.model.update(dict(architecture='lstm', n_layer=1, n_inner=2048))
  return config
