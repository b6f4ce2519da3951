"""Every field of a run, once: default, domain, unit and meaning. The other configs set only what differs.

Fields that are 0 or '' by default and say "0: ..." or "'': ..." are filled in when the run starts;
the values that a run used are in `config.json` of its workdir. What `integer`, `real`, ... allow is in
`gptjax/domains.py`; a value outside its domain is refused when the config is read.
"""

import json
import types

from gptjax.domains import (
  LARGEST_SEED,
  RATE,
  RATE_BELOW_1,
  Field,
  comma_separated,
  declarations,
  flag,
  integer,
  interval,
  names,
  one_of,
  path,
  real,
  text,
  weighted_folders,
)

SECONDS = real(0, 1e9)
THE_REST = {-1: 'the rest'}

FIELDS = dict(
  job=Field('pretrain', one_of('pretrain', 'finetune', 'evaluate'), 'what to do'),
  init_from=Field('', path(),
                  "folder of the first weights, which bring the model's shape and tokenizer: a Hugging Face "
                  "folder, OpenAI's files, a workdir or a checkpoint (see gptjax.load); '': fresh ones. A "
                  'checkpoint of the run itself goes first'),
  compilation_cache=Field('~/.cache/gptjax/compiled', path(),
                          "where compiled programs are kept between runs; '': nowhere. "
                          'JAX_COMPILATION_CACHE_DIR replaces the default, even if a config file sets it'),
  xla_preset=Field('none', one_of('none', 'gpu_cublas', 'gpu_cublaslt', 'gpu_double_buffer', 'gpu_overlap'),
                   "options of XLA's compiler for the step, by name (gptjax/kernels/xla_presets.py)"),

  model=dict(
    architecture=Field('transformer', one_of('transformer', 'lstm'),
                       "lstm: one layer, GPT-1's ablation; n_inner: its units"),
    n_layer=Field(12, integer(1), 'blocks'),
    n_head=Field(12, integer(1), 'attention heads; head size is n_embd / n_head'),
    n_embd=Field(768, integer(1), 'width'),
    n_ctx=Field(1024, integer(1), 'longest sequence, tokens'),
    n_vocab=Field(50_257, integer(1), 'tokens'),
    pad_vocab_to=Field(128, integer(1), 'embedding rows are padded to a multiple of this; never visible'),
    norm=Field('before', one_of('before', 'after'),
               "before: each sub-layer's input, and a last one (GPT-2); after: each sum (GPT-1)"),
    n_inner=Field(0, integer(0), 'width of the MLP inside; 0: 4 n_embd'),
    activation_function=Field('gelu_new', one_of('gelu_new', 'gelu', 'relu', 'silu'),
                              "gelu_new: tanh form, both papers' code; gelu: exact"),
    layer_norm_epsilon=Field(1e-5, real(0, 1, open_left=True), 'inside the square root'),
    scale_attn_weights=Field(True, flag(), 'scores / sqrt(head size)'),
    scale_attn_by_inverse_layer_idx=Field(False, flag(), 'and / layer, the first being 1 (neither paper)'),
    tie_word_embeddings=Field(True, flag(), 'False: the output layer has a matrix of its own, lm_head'),
    dropout=Field(0.0, RATE_BELOW_1, 'rate on embeddings, attention weights and residual branches'),
    init_std=Field(0.02, RATE, 'standard deviation of fresh weights'),
    wpe_init_std=Field(0.01, RATE, 'the same for positions (released GPT-2; GPT-1: 0.02)'),
    scale_residual_init=Field(True, flag(),
                              'residual projections start at init_std / sqrt(2 n_layer) (GPT-2 2.3)'),
    scan=Field(None, flag(unset=True),
               'True: one compiled layer, scanned; False: unrolled, slower to compile; not set: scanned on '
               'TPUs and with remat full, where it costs nothing'),
    remat=Field('none', one_of('none', 'dots', 'full'),
                'kept for the backward pass: none: all; dots: matmuls; full: nothing'),
    compute_dtype=Field('auto', one_of('auto', 'float32', 'bfloat16'),
                        'auto: bfloat16 on accelerators, float32 on CPU'),
  ),

  attention=dict(
    kernel=Field('auto', one_of('auto', 'xla', 'cudnn', 'splash', 'pallas'),
                 'cudnn (GPU, bfloat16), splash (TPU): no scores in memory, and no dropout. pallas (GPU): '
                 'none, with dropout; auto does not choose it: it has never run on one. auto: else the best '
                 'that can be had'),
  ),

  loss=dict(
    chunk=Field(128, integer(0), 'positions of each sequence whose logits exist at one time; 0: all'),
  ),

  data=dict(
    corpus=Field('', path(), "folder written by gptjax.data.prepare; '': WORKDIR/corpus"),
    mixture=Field((), weighted_folders(), 'in place of corpus: (folder, weight) of several to read together'),
    source=Field('', text(), 'what to prepare the corpus from, if the folder is not there yet'),
    tokenizer=Field('', text(), "what the corpus must be (or is) tokenized with; '': any"),
    recipe=Field('', text(), 'flags of gptjax.data.prepare that make the corpus; shown where it is missing'),
    recipe_cost=Field('', text(), 'what that text is, its size and the time it takes; shown with the recipe'),
    special_tokens=Field((), names(), "special tokens that the texts of a source or a task may contain, "
                         "('all',): all of them, (): none, text is text"),
    tfds_dir=Field('', path(), "where tensorflow_datasets keeps its sets; '': its own default"),
    tfds_download=Field(False, flag(), 'prepare sets that are not there, which may download them'),
    validation_fraction=Field(0.005, RATE_BELOW_1,
                              'share of the documents held out, when the corpus is prepared here'),
    seq_len=Field(0, integer(0), 'tokens a training sequence; 0: model.n_ctx'),
    cross_documents=Field(True, flag(),
                          'False: a sequence is of one document, what it lacks to seq_len is padding'),
    shift_windows=Field(True, flag(),
                        'windows begin elsewhere in each epoch (GPT-1: drawn at random); False: all epochs '
                        'read the same ones', before=False),
    verify=Field(True, flag(), 'hash the shards against the manifest before training'),
    prefetch=Field(4, integer(1, 1000), 'batches read ahead'),
  ),

  train=dict(
    steps=Field(0, integer(0), 'updates; 0: as many as `epochs` take'),
    epochs=Field(0.0, real(0, 1e6),
                 'passes over the corpus (a mixture: as long as over all), where steps is 0'),
    batch_size=Field(512, integer(1), 'sequences an update, over all devices'),
    microbatch_size=Field(0, integer(0),
                          'sequences at a time, over all devices; 0: batch_size (no accumulation)'),
    seed=Field(0, integer(0, LARGEST_SEED), 'of weights, dropout and the order of the data'),
    dropout_branch=Field('named', one_of('named', 'first'),
                         "branch of the seed's key from which dropout draws: named: its own; first: that of "
                         'an initial weight, as up to version 0.1.0', before='first'),
    max_skipped=Field(20, integer(1),
                      'steps in a row with no finite loss, after which to stop (or rewind)'),
    rewind=dict(               # what to do about a loss spike: go back, and past the batches that led to it
      threshold=Field(0.0, real(0, 1000),
                      'a spike: loss so many nats above its mean of some 10 steps; 0: none is'),
      steps_back=Field(100, integer(0),
                       'the newest checkpoint that is at least so old, in steps, is gone back to'),
      skip_batches=Field(200, integer(0), 'passed over from there; at least all up to the one of the spike'),
    ),
  ),

  optimizer=dict(
    name=Field('adamw', one_of('adamw', 'muon', 'openai_adam'),
               'muon: matrices of blocks; the rest by adamw'),
    learning_rate=Field(6e-4, RATE, 'peak; 0 freezes the weights'),
    schedule=Field('cosine', one_of('cosine', 'linear', 'constant', 'wsd', 'warmup_linear'),
                   'wsd: warm-up, stable, decay'),
    schedule_steps=Field(0, integer(0),
                         'length of the schedule; later steps keep its last rate; 0: the whole run'),
    warmup_steps=Field(2000, integer(0), 'linear from 0'),
    warmup_fraction=Field(0.002, RATE,
                          "warmup_linear (GPT-1's): share of all steps, in place of warmup_steps"),
    final_fraction=Field(0.1, RATE, 'of the peak, which the rate falls to at the end'),
    decay_fraction=Field(0.2, RATE, 'wsd: share of all steps in which it falls'),
    b1=Field(0.9, RATE_BELOW_1, 'decay of the first moment'),
    b2=Field(0.95, RATE_BELOW_1, 'decay of the second moment'),
    epsilon=Field(1e-8, real(0, 1, open_left=True), "Adam's, added to the root of the second moment"),
    weight_decay=Field(0.1, RATE, 'decoupled; on matrices alone (embeddings included)'),
    clip_norm=Field(1.0, real(0, 1e30), 'global gradient norm; 0: no clipping'),
    muon_momentum=Field(0.95, RATE_BELOW_1, "of Muon's running gradient"),
  ),

  mesh=dict(                   # devices along each axis; -1: the rest
    replica=Field(1, integer(1, also=THE_REST), 'copies across slices or nodes'),
    data=Field(-1, integer(1, also=THE_REST), 'copies'),
    fsdp=Field(1, integer(1, also=THE_REST), 'shards of parameters and optimizer state'),
    tensor=Field(1, integer(1, also=THE_REST), 'shards of heads, MLP and vocabulary'),
  ),

  checkpoint=dict(
    every_steps=Field(1000, integer(0), 'and at the end, and when told to stop; 0: only then'),
    keep=Field(2, integer(1), 'newest ones kept'),
    keep_best=Field(1, integer(0), 'more, by eval loss (those saved at a step that was evaluated)'),
    export=Field(False, flag(), 'WORKDIR/export: the newest good one, as a folder for transformers'),
  ),

  watchdog=dict(               # a run that hangs for longer shows its stacks and exits with 70; 0: never
    step_timeout=Field(1800.0, SECONDS, 'seconds for a step, or a batch of an evaluation'),
    compile_timeout=Field(7200.0, SECONDS,
                          'seconds for what is compiled first, by all processes, and for checkpoints'),
  ),

  eval=dict(
    every_steps=Field(1000, integer(0), 'held-out loss; and at the end; 0: only then'),
    steps=Field(0, integer(0), 'batches; 0: the whole validation split'),
    batch_size=Field(0, integer(0),
                     'sequences a batch, over all devices; 0: train.microbatch_size; in the job evaluate as '
                     'many as have 8,192 tokens a device, on CPUs 1,024'),
    ngrams=Field(False, flag(), 'compare with unigram and bigram models of the corpus at the end'),
    tasks=Field('', comma_separated(),
                'zero-shot tasks, comma-separated; in pretraining they run every_steps too'),
    data_dir=Field('', path(), 'folder of their published files'),
    limit=Field(0, integer(0), 'the first so many examples of each task; 0: all'),
    grid=Field(False, flag(), "job evaluate: the protocols beside the paper's too"),
  ),

  finetune=dict(
    tasks=Field((), names(), 'names in gptjax/finetune/tasks/published.py or own_tasks, one after the other'),
    own_tasks=Field((), declarations(), 'tasks declared here, see gptjax/finetune/tasks/declared.py'),
    data_dir=Field('', path(), 'folder of the TSV and JSONL files that a task names'),
    limit=Field(0, integer(0), 'examples of each split, the first ones; 0: all'),
    n_seeds=Field(1, integer(1, 1000), 'runs of each task, with train.seed, train.seed + 1, ...'),
    pretrained=Field(True, flag(), "False: fresh weights, in the shape of init_from (GPT-1's Table 5)"),
    transfer_layers=Field(-1, integer(0, also={-1: 'all'}),
                          'blocks that come from init_from; 0: embeddings alone (Figure 2)'),
    train=Field('full', one_of('full', 'last', 'lora'),
                'what is trained: all, the last blocks, or LoRAs; always head and new tokens'),
    last_layers=Field(1, integer(1), 'last: how many blocks'),
    lora_rank=Field(8, integer(1), 'lora: rank of what is added to each projection'),
    lm_coef=Field(0.5, real(0, 1000), 'weight of the auxiliary language-model loss (GPT-1 3.2: lambda)'),
    head_dropout=Field(0.1, RATE_BELOW_1, 'rate on what the head reads'),
    buckets=Field(8, integer(1, 8), 'widths that batches are padded to, at most; 1: all to the longest'),
    group_by_length=Field(False, flag(), "batches of like lengths: less padding; False: random (GPT-1's)",
                          before=True),
    patience=Field(0, integer(0), 'stop after so many evaluations without a better one; 0: never'),
    train_examples=Field(0, integer(0), 'training examples that are scored at the end too; 0: none'),
    predict=Field(False, flag(), 'write WORKDIR/predictions (--predict)'),
    study=Field('', one_of('', 'ablations', 'transfer', 'zero_shot'),
                'ablations (Table 5), transfer or zero_shot (Figure 2)'),
    lstm_from=Field('', path(), "ablations, zero_shot: workdir of a pretrained LSTM; '': without it"),
  ),

  log=dict(
    every_steps=Field(10, integer(1), 'a line in metrics.jsonl and TensorBoard'),
    tensorboard=Field(True, flag(), 'the same metrics into WORKDIR/tensorboard'),
    profile_steps=Field((0, 0), interval(), 'profile of steps [a, b) into tensorboard/; a = b: none'),
    sample_tokens=Field(0, integer(0), 'tokens of a sample from the model at the end'),
    sample_prompt=Field('', text(several_lines=True), "what it begins with; '': the end-of-text token"),
  ),
)


def declared(tree=FIELDS, prefix=''):
  """{'model.n_layer': Field}, of all fields."""
  found = {}
  for name, value in tree.items():
    if isinstance(value, Field):
      found[prefix + name] = value
    else:
      found |= declared(value, f'{prefix}{name}.')
  return found


def fields(tree=FIELDS):
  """The defaults of all fields as nested dicts."""
  return {name: value.default if isinstance(value, Field) else fields(value) for name, value in tree.items()}


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
