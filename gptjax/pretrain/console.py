"""Log lines of a pretraining run: at its start, at its steps, and its summary."""

import math

import jax
from flax import nnx

from gptjax.command import streams
from gptjax.data.corpus import ngrams, reader
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.generate import generation
from gptjax.model import size
from gptjax.model.parameters import declarations
from gptjax.parallel import processes, sharding
from gptjax.pretrain import rewind
from gptjax.report import samples
from gptjax.report.telemetry import duration, peak_flops, plot_curves
from gptjax.storage import rewind_log
from gptjax.storage.checkpoint import STORED_NAMES
from gptjax.text.words import plural

SAMPLES = 4  # texts, of which the summary shows the longest


def log_start(run, telemetry, state, start):
  """Log the weights, devices, corpora and length of the run."""
  from clu import parameter_overview
  config, mixture = run.config, run.mixture
  shown = _unpadded(state.params, declarations(nnx.merge(run.graphdef, state.params)), config.model.n_vocab)
  telemetry.log(parameter_overview.get_parameter_overview(shown, include_stats=False))
  devices = jax.devices()
  tokens = config.train.batch_size * config.data.seq_len
  n_windows = lambda corpus: reader.n_windows(corpus, config.data.seq_len, config.data.cross_documents)
  telemetry.log(f'{len(devices)} x {devices[0].device_kind}{processes.summary()}, '
                f'mesh {dict(run.mesh.shape)}, {config.model.compute_dtype}, '
                f'attention {config.attention.kernel}')
  for line in sharding.mesh_warnings(config, run.mesh):
    telemetry.log(line)
  for weight, corpus, held_out in zip(mixture.weights, mixture.train, mixture.held_out, strict=True):
    weight /= sum(mixture.weights)
    share = f'{weight:.2%} of the sequences, ' if len(mixture.train) > 1 else ''
    telemetry.log(f'corpus {corpus.folder}: {share}{corpus.n_tokens:,} tokens to train on '
                  f'({weight * run.steps * config.train.batch_size / n_windows(corpus):.2f} epochs), '
                  f'{held_out.n_tokens if held_out else 0:,} held out')
  telemetry.log(f'{plural(run.steps, "step")} of {plural(tokens, "token")}')
  telemetry.log_resume(start, start == run.steps)
  if run.rewinds:
    batches = rewind_log.batch_number(run.rewinds, start) - start
    telemetry.log(f'rewinds after loss spikes so far: {len(run.rewinds)} ({run.workdir / rewind_log.FILE}); '
                  f'batches skipped so far: {batches:,}')


def _unpadded(params, declared, n_vocab):
  """Shapes of the weights without the padding rows of the vocabulary, as nested dicts."""
  shape = lambda w, facts: jax.ShapeDtypeStruct(facts.unpadded_shape(w.shape, n_vocab), w.dtype)
  return jax.tree.map(shape, params, declared)


def log_step(run, telemetry, watch, number, metrics):
  """Check the metrics of a step that has been dispatched earlier, and log them when due.

  Raises:
    rewind.Spike: the loss is a spike, after which the run rewinds.
    ValueError: the run cannot continue.
  """
  config = run.config
  metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
  watch.steps += 1  # the step has finished now, not when it was dispatched
  if rewind.is_spike(config, metrics):
    raise rewind.Spike(number, metrics['loss'], metrics['loss_ema'])
  if metrics['skipped'] >= config.train.max_skipped:
    raise InputError(
      f'{int(metrics["skipped"])} steps in a row up to step {number} had a loss or gradient that is not '
      'finite: lower config.optimizer.learning_rate or inspect the data '
      '(gptjax.data.inspect); the weights are those of the last finite step')
  if number % config.log.every_steps and number != run.steps:
    return
  steps = watch.steps
  seconds, input_wait = watch.report()
  tokens = config.train.batch_size * config.data.seq_len
  metrics = {f'train/{STORED_NAMES.get(name, name)}': value for name, value in metrics.items()} | {
    'train/tokens_per_second': tokens / seconds, 'train/input_wait_fraction': input_wait,
    **telemetry.goodput(steps * seconds)}
  line = (f'loss {metrics["train/loss"]:.4f}  {tokens / seconds:,.0f} tokens/s')
  peak = peak_flops(jax.devices()[0])
  if peak:
    flops = size.flops_per_token(config.model, config.data.seq_len)
    per_device = tokens / seconds / jax.device_count()
    metrics['train/mfu'] = per_device * flops['palm'] / peak
    metrics['train/mfu_causal'] = per_device * flops['causal'] / peak
    line += f'  MFU {metrics["train/mfu"]:.1%}'
  telemetry.write(number, metrics)
  telemetry.progress(number, f'{line}  {duration((run.steps - number) * seconds)} left')


def log_summary(run, telemetry, state):
  """Log the held-out loss with n-gram baselines, a sample, the goodput and the output files."""
  config, mixture = run.config, run.mixture
  held_out = {name: corpus.n_bytes / corpus.n_tokens
              for name, corpus in zip(mixture.names, mixture.held_out, strict=True) if corpus}
  baselines = ngram_baselines(run) if config.eval.ngrams and held_out and telemetry.active else {}
  loss = telemetry.value(run.steps, 'eval/loss')
  if loss is not None:
    length = mixture.held_out_bytes_per_token()
    rows = [(name, value, length) for name, value in [*baselines.items(), ('this model', loss)]]
    if len(mixture.names) > 1:
      parts = {name: telemetry.value(run.steps, f'eval/loss/{name}') for name in held_out}
      # None: the corpus had another name when it was evaluated, before its folder was moved.
      rows += [(f'  of {name}', part, held_out[name]) for name, part in parts.items() if part is not None]
    width = max(16, *(len(name) + 2 for name, *_ in rows))
    telemetry.log(f'\n{"held-out text":<{width}}{"nats/token":>12}{"perplexity":>12}{"bits/byte":>12}')
    for name, value, length in rows:
      bits = value / length / math.log(2)
      telemetry.log(f'{name:<{width}}{value:>12.4f}{math.exp(value):>12.2f}{bits:>12.3f}')
  if config.log.sample_tokens:
    telemetry.log(f'\nsample, the longest of {SAMPLES}:\n{sample_text(run, state.params)}')
  spent = telemetry.goodput(0.0)
  telemetry.log(f'\ngoodput       {spent["time/goodput"]:.1%} (productive step time / '
                f'{duration(spent["time/run"])} total, restarts included)')
  if jax.process_index() == 0:
    from gptjax.report import page  # here, because a run starts without it
    telemetry.log('')
    with streams.optional('the report'):
      telemetry.log(f'report        {page.write([run.workdir], run.workdir)[0]}')
    with streams.optional('the plot of curves'):
      telemetry.log(f'curves        {plot_curves(run.workdir, baselines)}')
  telemetry.log(f'metrics       {telemetry.written_to}')
  telemetry.log(f'checkpoints   {run.workdir / "checkpoints"}')
  if config.checkpoint.export:
    telemetry.log(f'export        {run.workdir / "export"}')
  if telemetry.writes_tensorboard():
    telemetry.log(f'tensorboard   tensorboard --logdir {run.workdir / "tensorboard"}')


def ngram_baselines(run):
  """{'unigram': loss, 'bigram': loss} of held-out text, in nats per token; one model per corpus."""
  mixture, n_vocab, losses = run.mixture, run.config.model.n_vocab, []
  for splits in zip(mixture.train, mixture.held_out, strict=True):
    if all(splits):
      train, held_out = (split.tokens(0, split.n_tokens) for split in splits)
      losses.append((ngrams.unigram_loss(train, held_out, n_vocab),
                     ngrams.bigram_loss(train, held_out, n_vocab)))
  return {name: mixture.held_out_mean(values)
          for name, values in zip(('unigram', 'bigram'), zip(*losses, strict=True), strict=True)}


def sample_text(run, params):
  """Return the longest of SAMPLES texts (the first token may be end-of-text): top-k 40, as in the papers."""
  config = run.config
  tokenizer = loading.load(str(run.workdir / 'tokenizer'))
  prompt = config.log.sample_prompt
  try:
    texts = generation.sample((nnx.merge(run.graphdef, params), tokenizer), prompt=prompt or None,
                              num_samples=SAMPLES, max_tokens=config.log.sample_tokens,
                              top_k=generation.PAPER_TOP_K, seed=config.train.seed)
  except InputError as error:  # training is complete and saved
    return f'none: {error}'
  if jax.process_index() == 0:
    with streams.optional('saving the samples'):
      samples.save(run.workdir, {prompt: texts}, config.train.seed)
  return prompt + max(texts, key=len)
