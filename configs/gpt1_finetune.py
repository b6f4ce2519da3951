"""GPT-1's fine-tuning (Radford et al. 2018, section 4.1): --config=configs/gpt1_finetune.py:TASK

TASK is one of gptjax/finetune/tasks/published.py, or several with commas: sst2, cola, mrpc, qqp, stsb, mnli,
qnli, rte, snli, scitail, race, story_cloze, wnli; or one that your own config file declares
(`config.finetune.own_tasks`).
`--config.init_from=FOLDER` names the pretrained weights.

Expect          the paper's figures with the released weights: its table is printed beside the result
Meant for       one GPU of 16 GB or more

From the paper: rate 6.25e-5, random batches of 32, 3 epochs, warm-up over 0.2 % of the updates and then a
linear fall, lambda 0.5, dropout 0.1. From the released code: the form of Adam, decay 0.01, clipping at 1.
"""

from configs import default


def get_config(task='sst2'):
  config = default.get_config()
  config.job = 'finetune'
  config.finetune.tasks = tuple(task.split(','))
  config.model.update(dict(n_layer=12, n_head=12, n_embd=768, n_ctx=512, n_vocab=40_478, norm='after',
                           dropout=0.1, wpe_init_std=0.02, scale_residual_init=False))
  config.train.update(dict(epochs=3.0, batch_size=32))
  config.optimizer.update(dict(name='openai_adam', learning_rate=6.25e-5, schedule='warmup_linear',
                               warmup_fraction=0.002, b1=0.9, b2=0.999, weight_decay=0.01, clip_norm=1.0))
  config.checkpoint.update(dict(every_steps=1000, keep=1, keep_best=1))
  config.eval.every_steps = 1000
  return config
