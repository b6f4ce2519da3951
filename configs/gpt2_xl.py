"""GPT-2 1558M ("1542M" in the paper).

Parameters      1,557,611,200
Tokens per step 524,288 (512 sequences of 1,024)
Expect          the released weights have a loss of 2.54 on OpenWebText, without having seen it (nanoGPT's
                README); a model trained on it ends lower
Meant for       eight H100s or more, or a v5e-64 slice

Like gpt2_small.py except for the fields below. The paper tuned its rate by hand for each size and does
not state it: this one follows GPT-3's table for the nearest size.
"""

from configs import gpt2_small


def get_config():
  config = gpt2_small.get_config()
  config.model.update(dict(n_layer=48, n_head=25, n_embd=1600))
  config.optimizer.learning_rate = 2e-4
  config.mesh.update(dict(data=1, fsdp=-1))
  config.train.microbatch_size = 64  # divides over 8, 16, 32 or 64 devices
  config.model.remat = 'full'
  return config
