"""Speed of generation compared with transformers, interleaved: python -m gptjax.benchmark generate

Randomly initialized models of the papers' shapes generate a fixed number of tokens greedily, with a key-value
cache. Each contender runs in a process of its own; they are interleaved, and the result is the median over
turns. On a CPU, the memory bandwidth and the matmuls alone are measured too (see `gptjax.benchmark.limits`).
"""

import argparse
import functools
import statistics
import sys
import time

import numpy as np

from gptjax.benchmark import journal, limits, matmuls, results
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.command import bars, run
from gptjax.command.flag_types import integer, real
from gptjax.config import files
from gptjax.kernels import cpu

SIZES = {'124M': 'gpt2_small', '355M': 'gpt2_medium', '774M': 'gpt2_large', '1558M': 'gpt2_xl'}
TINY, TINY_MODEL = 'tiny', dict(n_layer=2, n_head=2, n_embd=32, n_ctx=1024, n_vocab=96)
TRANSFORMERS = 'transformers'
INT8 = f'{OURS}-int8'  # with int8 weights
PROMPT, NEW, LONG = 16, 64, 512  # tokens: of a prompt, generated after it, of the prompt for prefill alone
ONE, EIGHT, READ = 'batch 1', 'batch 8', f'prefill {LONG}'
BATCH = {ONE: 1, EIGHT: 8}
PACKAGES = ('jax', 'jaxlib', 'flax', 'torch', 'transformers')
# Memory bandwidth in bytes per second, from the manufacturers' data sheets.
BANDWIDTH = {'NVIDIA A100-SXM4-80GB': 2.04e12, 'NVIDIA H100 80GB HBM3': 3.35e12, 'NVIDIA H200': 4.8e12}


def make_config(size, dtype):
  """The config of a size, not resolved."""
  config = files.shipped(SIZES.get(size, 'default'))
  for field, value in TINY_MODEL.items() if size == TINY else ():
    setattr(config.model, field, value)
  config.model.compute_dtype, config.attention.kernel = dtype, 'xla'
  return config


def prompts(config, batch, length):
  """int32[batch, length]: random prompts."""
  return np.random.default_rng(0).integers(0, config.model.n_vocab, (batch, length), dtype=np.int32)


def gptjax_tasks(config, weight_dtype=None):
  """({task: function that runs it}, facts)."""
  import jax

  from gptjax.generate import kv_cache
  from gptjax.generate.sampling import SamplingOptions, row_keys
  from gptjax.model.gpt import GPT
  from gptjax.parallel import sharding
  cpu.configure_devices()
  sharding.ensure_mesh()
  model = jax.jit(functools.partial(GPT, config=config))(jax.random.key(0))
  model = kv_cache.prepare_for_decoding(model, weight_dtype)
  greedy = SamplingOptions(None, None, None, model.n_vocab)

  def generate(batch):
    tokens, lengths, slots = kv_cache.pad_prompts(prompts(config, batch, PROMPT), NEW, model.n_ctx)
    keys = row_keys(np.uint32(0), np.zeros(batch, np.uint32), np.arange(batch, dtype=np.int32))
    logits, cache = kv_cache.prefill(model, tokens, lengths, slots)
    first = np.asarray(kv_cache.sample_first(logits, keys, lengths, greedy))
    rest, n, _ = kv_cache.decode(model, cache, first, np.zeros(batch, bool), np.int32(NEW - 1), keys,
                              lengths + 1, greedy, np.array([-1], np.int32))
    return np.concatenate([first[:, None], np.asarray(rest)[:, :int(n)]], 1)

  def prefill():
    padded = kv_cache.pad_prompts(prompts(config, 1, LONG), 1, model.n_ctx)
    jax.block_until_ready(kv_cache.prefill(model, *padded))

  looked_up = [model.wpe] if model.tied else [model.wpe, model.wte]
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(model)) - sum(table[...].nbytes for table in looked_up)
  cache = kv_cache.bytes_per_token(model) * kv_cache.pad_prompts([[0] * PROMPT], NEW, model.n_ctx)[2]
  return ({task: functools.partial(generate, batch) for task, batch in BATCH.items()} | {READ: prefill},
          {'device': jax.devices()[0].device_kind, 'weights': size, 'cache': cache})


def transformers_tasks(config):
  """The tasks of transformers, as in `gptjax_tasks`."""
  import torch
  import transformers
  transformers.utils.logging.set_verbosity_error()
  c, device = config.model, 'cuda' if torch.cuda.is_available() else 'cpu'
  model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
    n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd, n_positions=c.n_ctx, vocab_size=c.n_vocab,
    bos_token_id=None, eos_token_id=None)).to(device, getattr(torch, c.compute_dtype)).eval()
  random_tokens = lambda batch, length: torch.tensor(prompts(config, batch, length)).long().to(device)

  @torch.no_grad()
  def generate(batch):
    tokens = random_tokens(batch, PROMPT)
    return model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, use_cache=True,
                          max_new_tokens=NEW, pad_token_id=0)[:, PROMPT:].cpu().numpy()

  @torch.no_grad()
  def prefill():
    model(random_tokens(1, LONG), use_cache=True, logits_to_keep=1).logits.cpu()

  return {task: functools.partial(generate, batch) for task, batch in BATCH.items()} | {READ: prefill}, {}


def matmuls_of_tasks(config):
  """{task: [matmuls.Matmul]}; of the prompts of ONE and EIGHT, which take as long as a token, none."""
  generated = {task: matmuls.merged(matmuls.of_weights(config, batch, batch), NEW)
               for task, batch in BATCH.items()}
  return generated | {READ: matmuls.of_batch(config, 1, LONG, 1)}


def worker(contender, config):
  """Answer each list of tasks with {task: seconds}, or with the limits."""
  if contender in limits.WORKERS:
    return limits.serve_worker(contender, lambda: matmuls_of_tasks(config))
  make_tasks = {OURS: gptjax_tasks, INT8: functools.partial(gptjax_tasks, weight_dtype='int8'),
                TRANSFORMERS: transformers_tasks}
  tasks, facts = make_tasks[contender](config)

  def answer(names):
    seconds = {}
    for name in names:
      start = time.perf_counter()
      tasks[name]()
      seconds[name] = time.perf_counter() - start
    return seconds

  return serve(facts, answer)


def with_limits(rows, answers):
  """The rows, those of gptjax with their shares of the limits that were measured."""
  facts, turns = answers[OURS]
  fields = {task: limits.matmul_fields([turn[task] for turn in turns], answers, task)
            for task in (ONE, READ, EIGHT)}
  for task, batch in BATCH.items():
    size = (facts['weights'] + batch * facts['cache']) * NEW
    fields[task] |= limits.bandwidth_fields([turn[task] for turn in turns], size, answers)
  return [row | fields[task_of(row)] if row['who'] == OURS else row for row in rows]


def task_of(row):
  return row['what'].rpartition(', ')[2]


def make_gates(seconds, size, dtype):
  """Gates of the medians, see `results.gate`."""
  ours, theirs, what = seconds[OURS], seconds[TRANSFORMERS], f'generation {size}, {dtype}'
  return [*(results.gate(f'{what}, {task}, times as fast as {TRANSFORMERS}', '>=', 1,
                         speedup(ours[task], theirs[task])) for task in (ONE, READ, EIGHT)),
          results.gate(f'{what}, {EIGHT}, times the tokens/s of {ONE}', '>=', 3,
                       8 * speedup(ours[EIGHT], ours[ONE]))]


def measurements_of(flags, name, seconds, turn):
  """A `results.measurement` for each task of a contender's answer {task: seconds}."""
  tokens = {READ: LONG, **{task: batch * NEW for task, batch in BATCH.items()}}
  return [results.measurement(f'generation {flags.size}, {flags.dtype}, {task}', name, 'tokens/s',
                              tokens[task] / task_seconds, turn) for task, task_seconds in seconds.items()]


def print_table(rows, seconds, gates, facts, answers):
  """Print the rows, the memory bandwidth that gptjax reaches, the limits, and the gates."""
  print(f'{"tokens/s":<16}{"":<14}{"median":>10}{"min":>10}{"max":>10}')
  for row in rows:
    values = ''.join(f'{row[name]:>10,.1f}' for name in ('median', 'least', 'most'))
    print(f'{task_of(row):<16}{row["who"]:<14}{values}   {limits.described(row)}'.rstrip())
  bandwidth = (facts['weights'] + facts['cache']) * NEW / statistics.median(seconds[OURS][ONE])
  peak = BANDWIDTH.get(facts['device'])
  print(f'\n{OURS} at batch 1 reads {bandwidth / 1e9:,.1f} GB/s of weights and cache'
        + (f', {bandwidth / peak:.0%} of the memory bandwidth' if peak else ''))
  limits.print_answers(answers)
  results.print_gates(gates)


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark generate', description=__doc__)
  parser.add_argument('--size', choices=(TINY, *SIZES), default='124M',
                      help='of the model; default: %(default)s')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32',
                      help='of the weights and of matmuls; default: %(default)s')
  parser.add_argument('--contenders', default=f'{OURS},{TRANSFORMERS}',
                      help=f'{OURS}, then any of {TRANSFORMERS} and {INT8} (int8 weights), by commas; '
                      'default: %(default)s')
  parser.add_argument('--turns', type=integer(1, 1000), default=5,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  parser.add_argument('--limit_s', type=real(0, 1e6, open_left=True), default=1e6,
                      help='time limit in seconds; contenders that are not ready in time are skipped')
  results.add_out(parser)
  journal.add_flag(parser)
  limits.add_flag(parser)
  parser.add_argument('--worker', choices=(OURS, INT8, TRANSFORMERS, *limits.WORKERS), help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(args.worker, make_config(args.size, args.dtype))
  contenders = args.contenders.split(',')
  others = contenders[1:]
  if contenders[0] != OURS or sorted(others) not in ([], [INT8], [TRANSFORMERS], [INT8, TRANSFORMERS]):
    parser.error(f'--contenders takes {OURS}, then {TRANSFORMERS}, {INT8} or both')
  return measure(args, contenders)


def measure(args, contenders):
  """Measure the contenders, print and write the results; returns the exit code."""
  machine = machine_info(PACKAGES)
  print(f'GPT-2 {args.size}, {args.dtype}, {NEW} tokens after {PROMPT}; {machine["cores"]} cores of '
        f'{machine["processor"]}, {machine["date"]}; medians of {args.turns} turns\n')
  records, measurements, lost = journal.Journal(args.journal), [], {}

  def on_lost(name, reason):
    lost[name] = reason
    bars.write(f'{name} {reason}', sys.stderr)
    records.add('lost', who=name, why=reason)

  def on_answer(name, facts, answer, turn):
    if name in limits.WORKERS:
      return
    if name == OURS and not turn:
      records.add('device', name=facts['device'])
    for measurement in measurements_of(args, name, answer, turn):
      measurements.append(measurement)
      records.add('figure', **measurement)

  worker_command = [sys.executable, '-m', 'gptjax.benchmark', 'generate', f'--size={args.size}',
                    f'--dtype={args.dtype}', '--worker']
  names = *contenders, *limits.available(args, limits.WORKERS)
  commands = {name: [*worker_command, name] for name in names}
  answers = interleaved(commands, [ONE, READ, EIGHT], args.turns, on_lost, on_answer, args.limit_s)
  seconds = {name: {task: [turn[task] for turn in turns] for task in (ONE, EIGHT, READ)}
             for name, (_, turns) in answers.items() if turns and name not in limits.WORKERS}
  rows = results.summarize(measurements)
  if OURS not in seconds:
    print(f'gptjax.benchmark: there are no measurements of {OURS}: see its message above', file=sys.stderr)
    return 1
  rows = with_limits(rows, answers)
  facts = answers[OURS][0]
  gates = make_gates(seconds, args.size, args.dtype) if TRANSFORMERS in seconds else []
  gates += limits.gates((row for row in rows if task_of(row) == ONE), 'of_bandwidth')
  for check in gates:
    records.add('gate', **check)
  print_table(rows, seconds, gates, facts, answers)
  if facts['device'] != 'cpu':
    machine['device'] = facts['device']
  results.write(args.out, 'generate', machine, rows, gates, facts=facts, seconds=seconds, lost=lost,
                limits=limits.medians(answers))
  return 0
