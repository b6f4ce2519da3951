"""GPT-1 (Radford et al. 2018), pretraining.

Parameters      116,534,784
Tokens per step 32,768 (64 sequences of 512)
Expect          perplexity 18.4 per token (loss 2.91) on BooksCorpus, the paper's; split not stated
Meant for       one GPU of 16 GB or more (the authors: a month on eight GPUs)

From the paper: 12 layers of norm after each sub-layer, dropout 0.1, 100 epochs, Adam at 2.5e-4 after
2,000 updates of warm-up and then a cosine to 0, decay 0.01 on all weights but biases and gains. From the
released code: betas and epsilon of Adam. Clipping is not stated for pretraining; 1 is the fine-tuning's.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.model.update(dict(n_layer=12, n_head=12, n_embd=768, n_ctx=512, n_vocab=40_478, norm='after',
                           dropout=0.1, wpe_init_std=0.02, scale_residual_init=False))
  config.data.update(dict(
    corpus='corpora/books-gpt1', tokenizer='gpt1', reference='bookscorpus',
    recipe="--source='text:books/*.txt' --tokenizer=gpt1:gpt1 --workers=16",
    recipe_cost='BooksCorpus, a text file per book in the folder books, and encoder_bpe_40000.json and '
                'vocab_40000.bpe in the folder gpt1: 5 GB of text, 1.2 G tokens, 2.4 GB on disk, an hour '
                'divided by the number of cores'))
  config.train.update(dict(steps=0, epochs=100.0, batch_size=64, microbatch_size=16))
  config.optimizer.update(dict(learning_rate=2.5e-4, schedule='cosine', warmup_steps=2000,
                               final_fraction=0.0, b1=0.9, b2=0.999, weight_decay=0.01, clip_norm=1.0))
  config.checkpoint.every_steps = 2000
  config.eval.update(dict(every_steps=2000, steps=200))
  return config
