"""A modern decoder of GPT-2's smallest shape on FineWeb: configs/modern.py at depth 12.

Parameters      162 M, of which 124 M multiply: the embedding is not the output layer
Tokens per step 524,288 (512 sequences of 1,024)
Tokens          2.5 G (4,713 steps), 20 for each parameter that multiplies
Expect          unknown, it has not been trained: GPT-2 with AdamW reaches 3.28 to 3.29 with 9.9 G tokens
                (gpt2_fineweb.py), and modded-nanogpt's records the same loss with fewer
Meant for       eight accelerators of 80 GB, in bfloat16; for fewer or smaller ones lower
                train.microbatch_size
"""

from configs import modern


def get_config():
  return modern.get_config('12')
