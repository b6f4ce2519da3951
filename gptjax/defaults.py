"""All config fields: default, domain, unit and meaning. The config files set only fields that differ.

Fields that are 0 or '' by default and whose meaning has "0: ..." or "'': ..." are filled in when the run
starts; `config.json` in the workdir has the values that a run used. `gptjax/domains.py` defines the domains
`integer`, `real`, ...; a value outside its domain is refused when the config is read.
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
  path_or_bucket,
  path_or_hub_name,
  real,
  text,
  weighted_folders,
)

# Texts with published losses, which gptjax/report/comparison/published_losses.py has.
REFERENCES = 'openwebtext', 'fineweb', 'bookscorpus', 'wikitext103'

SECONDS = real(0, 1e9)
THE_REST = {-1: 'the rest'}

FIELDS = dict(
  job=Field('pretrain', one_of('pretrain', 'finetune', 'evaluate', 'sweep'), 'what to do'),
  init_from=Field('', path_or_hub_name(),
                  "folder of the initial weights, which determine the model's shape and tokenizer: a Hugging "
                  "Face folder, OpenAI's files, a workdir or a checkpoint (see gptjax.load); or a model on "
                  "the Hugging Face Hub, which is downloaded: gpt2, OWNER/NAME, OWNER/NAME@REVISION; '': "
                  'random weights. A checkpoint of the run itself takes precedence'),
  compilation_cache=Field('~/.cache/gptjax/compiled', path(),
                          "folder that caches compiled programs between runs; '': no cache. "
                          'JAX_COMPILATION_CACHE_DIR replaces the default, even if a config file sets it'),
  xla_preset=Field('none', one_of('none', 'gpu_cublas', 'gpu_cublaslt', 'gpu_double_buffer', 'gpu_overlap'),
                   "options of XLA's compiler for the step, by name (gptjax/kernels/xla_presets.py)"),

  model=dict(
    architecture=Field('transformer', one_of('transformer', 'lstm'),
                       "lstm: one layer, GPT-1's ablation; n_inner: its units"),
    n_layer=Field(12, integer(1), 'blocks'),
    n_head=Field(12, integer(1), 'attention heads'),
    n_kv_head=Field(0, integer(0),
                    'heads of keys and values, a divisor of n_head (grouped-query attention); 0: n_head'),
    head_size=Field(0, integer(0), 'width of a head; 0: n_embd / n_head'),
    n_embd=Field(768, integer(1), 'width'),
    n_ctx=Field(1024, integer(1), 'longest sequence, tokens'),
    n_vocab=Field(50_257, integer(1), 'tokens'),
    pad_vocab_to=Field(128, integer(1), 'pads embedding rows to a multiple of this; does not change results'),
    positions=Field('learned', one_of('learned', 'rotary'),
                    'learned: a matrix of n_ctx rows, as in both papers; rotary: queries and keys are '
                    'rotated by an angle that grows with the position'),
    rotary_base=Field(10_000.0, real(1, 1e12),
                      'rotary: base of the angles (rope_theta in the configs of Llama)'),
    norm=Field('before', one_of('before', 'after'),
               "before: on each sub-layer's input and the final output (GPT-2); after: on each residual sum "
               '(GPT-1)'),
    norm_type=Field('layer', one_of('layer', 'rms'), 'layer: LayerNorm; rms: RMSNorm, without bias'),
    qk_norm=Field(False, flag(), 'normalize queries and keys over the head size, before their rotation'),
    bias=Field(True, flag(), 'False: projections and norms have no biases'),
    mlp=Field('plain', one_of('plain', 'gated', note=' (SwiGLU: gated, with activation_function = silu)'),
              'gated: the activation of one projection times another one, of width n_inner each; '
              'SwiGLU: gated with activation_function=silu'),
    n_inner=Field(0, integer(0), 'hidden width of the MLP; 0: 4 n_embd'),
    activation_function=Field('gelu_new', one_of('gelu_new', 'gelu', 'relu', 'relu_squared', 'silu'),
                              "gelu_new: tanh form, both papers' code; gelu: exact"),
    layer_norm_epsilon=Field(1e-5, real(0, 1, open_left=True), 'inside the square root of all norms'),
    scale_attn_weights=Field(True, flag(), 'scores / sqrt(head size)'),
    scale_attn_by_inverse_layer_idx=Field(False, flag(),
                                          'also divide by the layer index, from 1 (in neither paper)'),
    sliding_window=Field(0, integer(0),
                         'number of positions that each position attends to, itself included; 0: itself and '
                         'all earlier ones'),
    logit_soft_cap=Field(0.0, real(0, 1e6),
                         'logits z become c tanh(z / c), where c is this value; 0: they stay z'),
    tie_word_embeddings=Field(True, flag(), 'False: the output layer has a separate matrix, lm_head'),
    dropout=Field(0.0, RATE_BELOW_1, 'rate on embeddings, attention weights and residual branches'),
    embedding_dropout=Field('activations', one_of('activations', 'matrix'),
                            'what the dropout of embeddings zeroes: activations: entries of each position; '
                            "matrix: entries of the token and position matrices, once per step for all "
                            "positions and for the tied output layer, as GPT-1's released code"),
    init_std=Field(0.02, RATE, 'standard deviation of initial weights'),
    wpe_init_std=Field(0.01, RATE, 'the same for position embeddings (released GPT-2: 0.01; GPT-1: 0.02)'),
    scale_residual_init=Field(True, flag(),
                              'initialize residual projections with init_std / sqrt(2 n_layer) (GPT-2 2.3)'),
    scan=Field(None, flag(unset=True),
               'True: scan over layers, which compiles one layer; False: unrolled, slower to compile; not '
               'set: scan on TPUs and with remat full, where it costs nothing'),
    remat=Field('none', one_of('none', 'dots', 'full'),
                'activations stored for the backward pass: none: all; dots: results of matmuls; full: none'),
    compute_dtype=Field('auto', one_of('auto', 'float32', 'bfloat16'),
                        'auto: bfloat16 on accelerators, float32 on CPU'),
  ),

  attention=dict(
    kernel=Field('auto', one_of('auto', 'xla', 'cudnn', 'splash', 'pallas'),
                 'cudnn (GPU, bfloat16), splash (TPU): fused, without dropout. pallas (GPU): fused, with '
                 'dropout; auto does not choose it, because it is untested on hardware. auto: the fastest '
                 'other kernel that is available'),
  ),

  loss=dict(
    chunk=Field(128, integer(0), 'positions of each sequence whose logits are computed at a time; 0: all'),
  ),

  data=dict(
    corpus=Field('', path_or_bucket(), "folder written by `gptjax prepare`; '': WORKDIR/corpus"),
    mixture=Field((), weighted_folders(), 'instead of corpus: (folder, weight) of each corpus of a mixture'),
    source=Field('', text(),
                 'source from which the corpus is prepared if its folder does not exist; on the command '
                 'line, without data.corpus, it replaces the corpus of the config file by WORKDIR/corpus'),
    tokenizer=Field('', text(),
                    "tokenizer with which the corpus is (or must be) tokenized; '': any. train-bpe:N and "
                    'train-char train one on the source and set model.n_vocab, train-bpe:N only if that is '
                    'not set'),
    recipe=Field('', text(), 'flags of `gptjax prepare` for the corpus; shown if it is missing'),
    recipe_cost=Field('', text(),
                      'the text of the recipe, its size and the time to prepare it; shown with the recipe'),
    reference=Field('', one_of('', *REFERENCES),
                    'the text whose published losses (gptjax/report/comparison/published_losses.py) a report '
                    "draws beside the run's; '': none"),
    special_tokens=Field((), names(), "special tokens that the texts of a source or a task may contain, "
                         "('all',): all of them; (): none, they are encoded as plain text"),
    tfds_dir=Field('', path_or_bucket(), "data folder of tensorflow_datasets; '': its default"),
    tfds_download=Field(False, flag(), 'prepare missing data sets, which may download them'),
    validation_fraction=Field(0.005, RATE_BELOW_1,
                              'fraction of documents held out when this run prepares the corpus; GPT-2: 0.05 '
                              'of WebText'),
    seq_len=Field(0, integer(0), 'tokens per training sequence; 0: model.n_ctx'),
    cross_documents=Field(True, flag(),
                          'False: each sequence has one document and is padded to seq_len'),
    packing=Field(False, flag(),
                  'keep the documents of a training sequence apart: none attends to another one'),
    restart_positions=Field(False, flag(),
                            'with packing: count positions from the start of each document'),
    shift_windows=Field(True, flag(),
                        'shift the windows in each epoch (GPT-1: random windows); False: the same windows in '
                        'all epochs', legacy_default=False),
    verify=Field(True, flag(), 'verify the hashes of the shards before training'),
    prefetch=Field(4, integer(1, 1000), 'batches read ahead'),
    cache_dir=Field('~/.cache/gptjax/buckets', path(),
                    'folder of this machine for copies of what is read from gs:// and s3://'),
    cache_gb=Field(0.0, real(0, 1e9),
                   'limit of the cache, GB; beyond it, shards are read by ranges; 0: the free space'),
  ),

  train=dict(
    steps=Field(0, integer(0), 'steps; 0: determined by `epochs`'),
    epochs=Field(0.0, real(0, 1e6),
                 'passes over the corpus (or over all corpora of a mixture), if steps is 0'),
    batch_size=Field(512, integer(1), 'sequences per step, over all devices'),
    microbatch_size=Field(0, integer(0),
                          'sequences per microbatch, over all devices; 0: batch_size (no accumulation)'),
    seed=Field(0, integer(0, LARGEST_SEED), 'of weights, dropout and the order of the data'),
    dropout_branch=Field('named', one_of('named', 'first'),
                         "branch of the seed's key for dropout: named: a separate one; first: that of an "
                         'initial weight, as up to version 0.1.0', legacy_default='first'),
    max_skipped=Field(20, integer(1),
                      'consecutive steps without a finite loss after which to stop (or rewind)'),
    rewind=dict(               # after a loss spike, return to a checkpoint and skip the batches before it
      threshold=Field(0.0, real(0, 1000),
                      'nats by which the loss of a spike exceeds its running mean (~10 steps); 0: off'),
      steps_back=Field(100, integer(0),
                       'return to the newest checkpoint at least this many steps before the spike'),
      skip_batches=Field(200, integer(0), 'batches to skip from there; at least all up to the spike'),
    ),
  ),

  optimizer=dict(
    name=Field('adamw', one_of('adamw', 'muon', 'openai_adam'),
               'muon: matrices of blocks; the rest by adamw'),
    learning_rate=Field(6e-4, RATE, 'peak; 0 freezes the weights'),
    schedule=Field('cosine', one_of('cosine', 'linear', 'constant', 'wsd', 'warmup_linear'),
                   'wsd: warm-up, stable, decay'),
    schedule_steps=Field(0, integer(0),
                         'length of the schedule, after which the rate is constant; 0: the whole run'),
    warmup_steps=Field(2000, integer(0), 'steps of linear warm-up from 0'),
    warmup_fraction=Field(0.002, RATE,
                          "warmup_linear (GPT-1's): fraction of all steps, instead of warmup_steps"),
    final_fraction=Field(0.1, RATE, 'final learning rate as a fraction of the peak'),
    decay_fraction=Field(0.2, RATE, 'wsd: fraction of all steps in which the rate decays'),
    b1=Field(0.9, RATE_BELOW_1, 'decay of the first moment'),
    b2=Field(0.95, RATE_BELOW_1, 'decay of the second moment'),
    epsilon=Field(1e-8, real(0, 1, open_left=True), "Adam's, added to the root of the second moment"),
    weight_decay=Field(0.1, RATE, 'decoupled; only on matrices (including embeddings)'),
    clip_norm=Field(1.0, real(0, 1e30), 'global gradient norm; 0: no clipping'),
    muon_momentum=Field(0.95, RATE_BELOW_1, "of Muon's running gradient"),
    embedding_rate=Field(1.0, real(0, 1e6),
                         'factor of the learning rate of embeddings that are not the output layer too: of '
                         'positions, and of tokens with tie_word_embeddings=False'),
  ),

  mesh=dict(                   # devices along each axis; -1: the rest
    replica=Field(1, integer(1, also=THE_REST), 'data parallelism across slices or nodes'),
    data=Field(-1, integer(1, also=THE_REST), 'data parallelism'),
    fsdp=Field(1, integer(1, also=THE_REST), 'shards of parameters and optimizer state'),
    tensor=Field(1, integer(1, also=THE_REST), 'shards of heads, MLP and vocabulary'),
  ),

  checkpoint=dict(
    every_steps=Field(1000, integer(0),
                      'steps between checkpoints; also at the end and at a stop; 0: only then'),
    every_minutes=Field(0.0, real(0, 1e6),
                        'also save when the last save started this many minutes ago; 0: never'),
    keep=Field(2, integer(1), 'newest checkpoints to keep'),
    keep_best=Field(1, integer(0), 'checkpoints with the best eval loss to keep'),
    keep_period=Field(0, integer(0),
                      'also save after each multiple of this step, and keep these checkpoints; 0: none'),
    keep_period_weights_only=Field(False, flag(),
                                   'pretraining: keep only the weights of these, in WORKDIR/milestones/STEP'),
    max_failed=Field(3, integer(1),
                     'saves in a row to a bucket that may fail before the run ends; on a disk the first '
                     'one ends it'),
    export=Field(False, flag(), 'export the newest valid checkpoint to WORKDIR/export, for transformers'),
  ),

  storage=dict(                # of gs:// and s3://
    retry_seconds=Field(600.0, real(0, 1e6),
                        'how long requests are repeated that fail for a reason that passes'),
  ),

  watchdog=dict(               # limits without progress: then dump stacks and exit with 70; 0: none
    step_timeout=Field(1800.0, SECONDS, 'seconds for a step or an evaluation batch'),
    compile_timeout=Field(7200.0, SECONDS,
                          'seconds for work that includes compilation, and for checkpoints'),
    connect_timeout=Field(60.0, real(1, 1e9), 'seconds at the start within which all processes must connect'),
  ),

  eval=dict(
    every_steps=Field(1000, integer(0),
                      'steps between evaluations of the held-out loss; also at the end; 0: only then'),
    steps=Field(0, integer(0), 'batches; 0: the whole validation split'),
    batch_size=Field(0, integer(0),
                     'sequences per batch, over all devices; 0: train.microbatch_size; in the job evaluate '
                     '8,192 tokens per device, 1,024 on CPUs'),
    n_ctx=Field(0, integer(0),
                'job evaluate: longest sequence given to the model, tokens, as if it had no longer '
                'context; 0: model.n_ctx'),
    ngrams=Field(False, flag(), 'compare with unigram and bigram models of the corpus at the end'),
    tasks=Field('', comma_separated(),
                'zero-shot tasks, comma-separated; core: all of CORE; pretraining runs them every_steps'),
    data_dir=Field('', path_or_bucket(), 'folder of the published files of the tasks'),
    limit=Field(0, integer(0), 'use only this many first examples of each task, lines of text sets; 0: all'),
    grid=Field(False, flag(), "job evaluate: also run protocols other than the paper's"),
    counterfactual=Field(False, flag(),
                         "tasks of CORE: also answer each question with the readable part of another one"),
  ),

  finetune=dict(
    tasks=Field((), names(), 'names in gptjax/finetune/tasks/published.py or own_tasks, one after the other'),
    own_tasks=Field((), declarations(), 'tasks declared here, see gptjax/finetune/tasks/declared.py'),
    data_dir=Field('', path_or_bucket(), 'folder of the TSV and JSONL files that a task names'),
    limit=Field(0, integer(0), 'use only this many first examples of each split; 0: all'),
    story_cloze_split=Field('released', one_of('released', 'tfds'),
                            'Story Cloze: released: the 1,497 and 374 labelled stories of the released code, '
                            'from the CSV files in data_dir; tfds: four fifths and one fifth of them in the '
                            'order of TensorFlow Datasets', legacy_default='tfds'),
    numeric_labels=Field('regression', one_of('regression', 'soft_label'),
                         'labels that are numbers (STS-B): regression: squared error; soft_label: '
                         'cross-entropy with a distribution over the integers of the scale, as the released '
                         'code encodes them'),
    n_seeds=Field(1, integer(1, 1000), 'runs of each task, with train.seed, train.seed + 1, ...'),
    pretrained=Field(True, flag(), "False: random weights, in the shape of init_from (GPT-1's Table 5)"),
    transfer_layers=Field(-1, integer(0, also={-1: 'all'}),
                          'blocks taken from init_from; 0: only the embeddings (Figure 2)'),
    train=Field('full', one_of('full', 'last', 'lora'),
                'trained weights: all, the last blocks, or LoRA; always the head and new tokens'),
    last_layers=Field(1, integer(1), 'last: number of blocks'),
    lora_rank=Field(8, integer(1), 'lora: rank of the update of each projection'),
    lm_coef=Field(0.5, real(0, 1000), 'weight of the auxiliary language-model loss (GPT-1 3.2: lambda)'),
    head_dropout=Field(0.1, RATE_BELOW_1, 'rate on the input of the head'),
    buckets=Field(8, integer(1, 16), 'maximum number of padded widths; 1: all batches padded to the longest'),
    width_multiple=Field(8, integer(1, 128), 'of padded widths: 8 suits TPUs and GPUs, 1 has less padding'),
    width_saving=Field(0.04, real(0, 1), 'share of all padded tokens that one more width must save, as it is '
                       'more programs to compile'),
    group_by_length=Field(False, flag(), "batches of similar lengths: less padding; False: random (GPT-1's)",
                          legacy_default=True),
    patience=Field(0, integer(0), 'stop after this many evaluations without improvement; 0: never'),
    train_examples=Field(0, integer(0), 'training examples that are also scored at the end; 0: none'),
    predict=Field(False, flag(), 'write WORKDIR/predictions (--predict)'),
    study=Field('', one_of('', 'ablations', 'transfer', 'zero_shot'),
                'ablations (Table 5), transfer or zero_shot (Figure 2)'),
    lstm_from=Field('', path_or_bucket(),
                    "ablations, zero_shot: workdir of a pretrained LSTM; '': without it"),
  ),

  sweep=dict(                  # the job sweep: one run for each size, --config=FILE:SIZE
    sizes=Field((), names(), 'arguments of get_config in the config file, in the order of the runs'),
    tasks=Field('', comma_separated(),
                "zero-shot tasks of each size after its training, in WORKDIR/SIZE-zero-shot; '': none"),
  ),

  log=dict(
    every_steps=Field(10, integer(1), 'steps between records in metrics.jsonl and TensorBoard'),
    tensorboard=Field(True, flag(), 'write the metrics to WORKDIR/tensorboard too'),
    wandb=Field('', text(),
                "project of Weights & Biases to which the metrics are written too; '': none. Needs "
                "pip install 'gptjax[wandb]'; WANDB_MODE=offline writes to WORKDIR/wandb only"),
    profile_steps=Field((0, 0), interval(), 'profile steps [a, b) to WORKDIR/tensorboard; a = b: none'),
    sample_tokens=Field(0, integer(0), 'tokens of a sample at the end; 0: none'),
    sample_prompt=Field('', text(several_lines=True), "prompt of the sample; '': the start-of-text token"),
  ),
)


def declared(tree=FIELDS, prefix=''):
  """Return {'model.n_layer': Field} of all fields."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Field):
      flat[prefix + name] = value
    else:
      flat |= declared(value, f'{prefix}{name}.')
  return flat


def fields(tree=FIELDS):
  """Return the defaults of all fields as nested dicts."""
  return {name: value.default if isinstance(value, Field) else fields(value) for name, value in tree.items()}


class Plain(types.SimpleNamespace):
  """Replacement of ConfigDict if ml_collections is not installed."""

  def update(self, values):
    vars(self).update(values)


def get_config():
  """Return the fields as a ConfigDict that refuses unknown keys; as `Plain` without ml_collections."""
  try:
    from ml_collections import ConfigDict, config_dict
  except ImportError:
    return json.loads(json.dumps(fields()), object_hook=lambda d: Plain(**d))
  config = ConfigDict(fields())
  config.model.scan = config_dict.placeholder(bool)  # else a flag could not set it
  return config
