"""GPT-2 355M ("345M" in the paper).

Parameters      354,823,168
Tokens per step 524,288 (512 sequences of 1,024)
Expect          the released weights have a loss of 2.84 on OpenWebText, without having seen it (nanoGPT's
                README); a model trained on it ends lower
Meant for       eight GPUs of 40 GB, or a v5e-16 slice

Like gpt2_small.py except for the fields below. The paper tuned its rate by hand for each size and does
not state it: this one follows GPT-3's table for the nearest size.
"""

from configs import gpt2_small


def get_config():
  config = gpt2_small.get_config()
  config.model.update(dict(n_layer=24, n_head=16, n_embd=1024))
  config.optimizer.learning_rate = 3e-4
  config.mesh.update(dict(data=1, fsdp=-1))
  config.train.microbatch_size = 64  # divides over 8, 16, 32 or 64 devices
  return config
