"""GPT-2 124M ("117M" in the paper).

Parameters      124,439,808
Tokens per step 524,288 (512 sequences of 1,024)
Tokens          314.6 G (600,000 steps)
Expect          held-out loss about 2.85 on OpenWebText after 300 G tokens (nanoGPT, from scratch);
                the released weights have 3.12 there, without having seen it
Meant for       one GPU of 16 GB or more; eight A100s take about four days for 300 G tokens (nanoGPT's README)

The paper (section 2.3) gives shape, context 1,024, vocabulary 50,257 and batch 512. It does not give
rate, schedule, steps, decay or dropout: those here are the community's (nanoGPT), dropout 0.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.model.update(dict(n_layer=12, n_head=12, n_embd=768, n_ctx=1024, n_vocab=50_257))
  config.data.update(dict(
    corpus='corpora/openwebtext-gpt2', tokenizer='gpt2',
    recipe="--source='parquet:hf://datasets/Skylion007/openwebtext@79d93d786212f7344586290adb811d4ae6a1762c/"
           "plain_text/*.parquet' --tokenizer=gpt2 --workers=16 --on_error=skip",
    recipe_cost='OpenWebText, read from Hugging Face: 24 GB to download, 40 GB of text, 9 G tokens, 18 GB on '
                'disk, an hour and a half divided by the number of cores',
    reference='openwebtext'))
  config.train.update(dict(steps=600_000, batch_size=512, microbatch_size=8))
  config.optimizer.update(dict(learning_rate=6e-4, schedule='cosine', warmup_steps=2000, final_fraction=0.1,
                               b1=0.9, b2=0.95, weight_decay=0.1, clip_norm=1.0))
  config.checkpoint.every_steps = 2000
  config.eval.update(dict(every_steps=2000, steps=200))
  return config
