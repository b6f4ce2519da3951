"""The four sizes of GPT-2 on the same 10 G tokens of FineWeb: --config=configs/gpt2_sweep.py

Parameters      124, 355, 774 and 1,558 M
Tokens per step 524,288 (512 sequences of 1,024)
Tokens          9.9 G for each size
Expect          124M: held-out loss 3.28 to 3.29 (see gpt2_fineweb.py); the other sizes lower
Meant for       eight GPUs of 80 GB: 124M in hours, 1558M in a day

`gptjax sweep` runs all sizes, one after the other. One size alone: `--size=355M`, or the ordinary config
`--config=gpt2_sweep:355M --workdir=WORKDIR/355M`, for instance on hosts of its own.
"""

from configs import gpt2_fineweb, gpt2_large, gpt2_medium, gpt2_small, gpt2_xl

SIZES = {'124M': gpt2_small, '355M': gpt2_medium, '774M': gpt2_large, '1558M': gpt2_xl}


def get_config(size=''):
  config = gpt2_fineweb.on_fineweb(SIZES[size or '124M'].get_config())
  config.job = 'pretrain' if size else 'sweep'
  config.sweep.update(dict(
    sizes=tuple(SIZES),
    tasks='lambada,cbt_cn,cbt_ne,winograd,wikitext2,ptb,enwik8,text8,wikitext103,1bw,coqa,natural_questions,'
          'wmt14_fr_en,cnn_dailymail,held_out'))
  return config
