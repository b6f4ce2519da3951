"""The GPT-2 paper's zero-shot suite on any weights: `--config.init_from=PATH --workdir=D`.

Tasks           --config.eval.tasks=lambada,wikitext2 takes only these
Data            the sets' own files under --config.eval.data_dir (docs/howto/evaluation.md), TFDS sets
                prepared under --config.data.tfds_dir; what is absent is not run, and the table says so
Expect          with the released weights the paper's figures, or where those cannot be reproduced what others
                have measured; both stand beside ours in results.md
Meant for       124M: LAMBADA and WikiText-2 in about an hour on two CPU cores; the whole suite needs a GPU

Computes in float32: in bfloat16 the rounding, and with it a close choice, depends on the shapes of batches.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.job = 'evaluate'
  config.model.compute_dtype = 'float32'
  config.eval.update(dict(
    grid=True,
    tasks='lambada,cbt_cn,cbt_ne,winograd,wikitext2,ptb,enwik8,text8,wikitext103,1bw,coqa,natural_questions,'
          'wmt14_en_fr,wmt14_fr_en,cnn_dailymail,cola,sst2,race,dprd,held_out'))
  return config
