"""Every field of a run, once, with its unit and meaning. The other configs set only what differs.

Fields that are 0 or '' by default and say "0: ..." or "'': ..." are filled in when the run starts;
the values that a run used stand in `config.json` of its workdir.
"""

import json
import types


def fields():
  """All fields as nested dicts."""
  return dict(
    # What to do: pretrain | finetune | evaluate.
    job='pretrain',
    # Folder of the first weights: a Hugging Face folder, OpenAI's files, a workdir or a checkpoint (see
    # gptjax.load); '': fresh ones. A checkpoint of the run itself goes first.
    init_from='',
    # Where compiled programs are kept between runs; '': nowhere.
    compilation_cache='~/.cache/gptjax/compiled',
    # Options of XLA's compiler for the training step, by name: none | gpu_* (see gptjax/compiler.py).
    xla_preset='none',

    model=dict(
      architecture='transformer', # transformer | lstm (one layer, GPT-1's ablation; n_inner: its units)
      n_layer=12,                # blocks
      n_head=12,                 # attention heads; head size is n_embd / n_head
      n_embd=768,                # width
      n_ctx=1024,                # longest sequence, tokens
      n_vocab=50_257,            # tokens
      pad_vocab_to=128,          # embedding rows are padded to a multiple of this; never visible
      norm='before',             # before (GPT-2: each sub-layer's input, and a last one) | after (GPT-1)
      n_inner=0,                 # width of the MLP inside; 0: 4 n_embd
      activation_function='gelu_new',  # gelu_new (tanh form, both papers' code) | gelu (exact) | relu | silu
      layer_norm_epsilon=1e-5,   # inside the square root
      scale_attn_weights=True,   # scores / sqrt(head size)
      scale_attn_by_inverse_layer_idx=False,  # and / layer, the first being 1 (neither paper)
      tie_word_embeddings=True,  # False: the output layer has a matrix of its own, lm_head
      dropout=0.0,               # rate on embeddings, attention weights and residual branches
      init_std=0.02,             # standard deviation of fresh weights
      wpe_init_std=0.01,         # the same for positions (released GPT-2; GPT-1: 0.02)
      scale_residual_init=True,  # residual projections start at init_std / sqrt(2 n_layer) (GPT-2 2.3)
      scan=None,                 # True: one compiled layer, scanned; False: unrolled, slower to compile;
                                 # not set: scanned on TPUs and with remat full, where it costs nothing
      remat='none',              # kept for the backward pass: none (all) | dots (matmuls) | full (nothing)
      compute_dtype='auto',      # float32 | bfloat16 | auto: bfloat16 on accelerators, float32 on CPU
    ),

    attention=dict(
      # cudnn, splash: no scores in memory, and no dropout. pallas: none, with dropout, on NVIDIA GPUs; auto
      # does not choose it: it has never run on one. auto: else the best that can be had.
      kernel='auto',             # xla | cudnn (GPU, bfloat16) | splash (TPU) | pallas (GPU) | auto
    ),

    loss=dict(
      chunk=128,                 # positions of each sequence whose logits exist at one time; 0: all
    ),

    data=dict(
      corpus='',                 # folder written by gptjax.data.prepare; '': WORKDIR/corpus
      mixture=(),                # in place of corpus: (folder, weight) of several to read together
      source='',                 # what to prepare the corpus from, if the folder is not there yet
      tokenizer='',              # what the corpus must be (or is) tokenized with; '': any
      tfds_dir='',               # where tensorflow_datasets keeps its sets; '': its own default
      validation_fraction=0.005, # share of the documents held out, when the corpus is prepared here
      seq_len=0,                 # tokens a training sequence; 0: model.n_ctx
      cross_documents=True,      # False: a sequence is of one document, what it lacks to seq_len is padding
      verify=True,               # hash the shards against the manifest before training
      prefetch=4,                # batches read ahead
    ),

    train=dict(
      steps=0,                   # updates; 0: as many as `epochs` take
      epochs=0.0,                # passes over the corpus (a mixture: as long as over all), where steps is 0
      batch_size=512,            # sequences an update, over all devices
      microbatch_size=0,         # sequences at a time, over all devices; 0: batch_size (no accumulation)
      seed=0,                    # of weights, dropout and the order of the data
      max_skipped=20,            # steps in a row with no finite loss, after which to stop (or rewind)
      rewind=dict(               # what to do about a loss spike: go back, and past the batches that led to it
        threshold=0.0,           # a spike: loss so many nats above its mean of some 10 steps; 0: none is
        steps_back=100,          # the newest checkpoint that is at least so old, in steps, is gone back to
        skip_batches=200,        # passed over from there; at least all up to the one of the spike
      ),
    ),

    optimizer=dict(
      name='adamw',              # adamw | muon (matrices of blocks; the rest by adamw) | openai_adam
      learning_rate=6e-4,        # peak
      schedule='cosine',         # cosine | linear | constant | wsd (warm-up, stable, decay) | warmup_linear
      schedule_steps=0,          # length of the schedule; later steps keep its last rate; 0: the whole run
      warmup_steps=2000,         # linear from 0
      warmup_fraction=0.002,     # warmup_linear (GPT-1's): share of all steps, in place of warmup_steps
      final_fraction=0.1,        # of the peak, which the rate falls to at the end
      decay_fraction=0.2,        # wsd: share of all steps in which it falls
      b1=0.9,                    # decay of the first moment
      b2=0.95,                   # decay of the second moment
      epsilon=1e-8,
      weight_decay=0.1,          # decoupled; on matrices alone (embeddings included)
      clip_norm=1.0,             # global gradient norm; 0: no clipping
      muon_momentum=0.95,        # of Muon's running gradient
    ),

    mesh=dict(                   # devices along each axis; -1: the rest
      replica=1,                 # copies across slices or nodes
      data=-1,                   # copies
      fsdp=1,                    # shards of parameters and optimizer state
      tensor=1,                  # shards of heads, MLP and vocabulary
    ),

    checkpoint=dict(
      every_steps=1000,          # and at the end, and when told to stop; 0: only then
      keep=2,                    # newest ones kept
      keep_best=1,               # more, by eval loss (those saved at a step that was evaluated)
      export=False,              # WORKDIR/export: the newest good one, as a folder for transformers
    ),

    watchdog=dict(               # a run that hangs for longer shows its stacks and exits with 70; 0: never
      step_timeout=1800.0,       # seconds for a step, or a batch of an evaluation
      compile_timeout=7200.0,    # seconds for what is compiled first, and for checkpoints
    ),

    eval=dict(
      every_steps=1000,          # held-out loss; and at the end; 0: only then
      steps=0,                   # batches; 0: the whole validation split
      batch_size=0,              # sequences a batch, over all devices; 0: train.microbatch_size; in the job
                                 # evaluate as many as have 8,192 tokens a device, on CPUs 1,024
      ngrams=False,              # compare with unigram and bigram models of the corpus at the end
      tasks='',                  # zero-shot tasks, comma-separated; in pretraining they run every_steps too
      data_dir='',               # folder of their published files
      limit=0,                   # the first so many examples of each task; 0: all
      grid=False,                # job evaluate: the protocols beside the paper's too
    ),

    finetune=dict(
      tasks=(),                  # names in gptjax/finetune/tasks.py, fine-tuned one after the other
      data_dir='',               # folder of the TSV files that a task names
      limit=0,                   # examples of each split, the first ones; 0: all
      n_seeds=1,                 # runs of each task, with train.seed, train.seed + 1, ...
      pretrained=True,           # False: fresh weights, in the shape of init_from (GPT-1's Table 5)
      transfer_layers=-1,        # blocks that come from init_from; -1: all; 0: embeddings alone (Figure 2)
      train='full',              # what is trained: full | last (blocks) | lora; always head and new tokens
      last_layers=1,             # last: how many blocks
      lora_rank=8,               # lora: rank of what is added to each projection
      lm_coef=0.5,               # weight of the auxiliary language-model loss (GPT-1 3.2: lambda)
      head_dropout=0.1,          # rate on what the head reads
      buckets=8,                 # widths that sequences are padded to, at most; 1: all to the longest
      patience=0,                # stop after so many evaluations without a better one; 0: never
      train_examples=0,          # training examples that are scored at the end too; 0: none
      predict=False,             # write WORKDIR/predictions (--predict)
      study='',                  # ablations (Table 5) | transfer, zero_shot (Figure 2) | '': none
      lstm_from='',              # ablations, zero_shot: workdir of a pretrained LSTM; '': without it
    ),

    log=dict(
      every_steps=10,            # a line in metrics.jsonl and TensorBoard
      tensorboard=True,          # the same metrics into WORKDIR/tensorboard
      profile_steps=(0, 0),      # profile of steps [a, b) into tensorboard/; a = b: none
      sample_tokens=0,           # tokens of a sample from the model at the end
      sample_prompt='',          # what it begins with; '': the end-of-text token
    ),
  )


class Plain(types.SimpleNamespace):
  """What takes the place of a ConfigDict where ml_collections is not installed."""

  def update(self, values):
    vars(self).update(values)


def get_config():
  """The fields as a ConfigDict that refuses unknown keys; as `Plain` without ml_collections."""
  try:
    from ml_collections import ConfigDict, config_dict
  except ImportError:
    return json.loads(json.dumps(fields()), object_hook=lambda d: Plain(**d))
  config = ConfigDict(fields())
  config.model.scan = config_dict.placeholder(bool)  # else a flag could not set it
  return config
