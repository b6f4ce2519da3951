"""Zero-shot scoring compared with lm-evaluation-harness, interleaved: python -m gptjax.benchmark evaluate

Both contenders use the same random weights of GPT-2's 124M shape, in float32 and in bfloat16; the harness
runs its own Hugging Face model at the fastest of a few batch sizes. They score passages of LAMBADA (the last
words) and the start of WikiText-2's raw test set (all tokens). Their log probabilities must agree.
"""

import argparse
import contextlib
import functools
import io
import itertools
import logging
import sys
import tempfile
import time

from gptjax.benchmark import results
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.subjects.generate import SIZES, make_config
from gptjax.command import run
from gptjax.command.flag_types import integer
from gptjax.kernels import cpu
from gptjax.storage.files import paths

OURS, HARNESS = 'gptjax', 'lm-evaluation-harness'
DTYPES = 'float32', 'bfloat16'
LAMBADA, WIKITEXT = 'LAMBADA', 'WikiText-2'
BATCHES = 1, 8  # sizes for the harness; the fastest is used
PACKAGES = ('jax', 'jaxlib', 'flax', 'torch', 'transformers', 'lm_eval')
TARGET_SPEEDUP = 2


def load_texts(data_dir, passages, characters):
  """([(text before, last word with its space)], the start of WikiText-2)."""
  from gptjax.evaluate.tasks import lambada, language_modelling
  from gptjax.evaluate.texts import sources
  data = sources.DataOptions(data_dir, '', passages)
  passages_of_lambada = lambada.read(data)[lambada.OPENAI]
  lines = language_modelling.read(language_modelling.SETS[0], data._replace(limit=0))
  pairs = [lambada.split_last_word(text) for text in passages_of_lambada]
  return pairs, ''.join(lines)[:characters]


def gptjax_tasks(folder, dtype, pairs, text):
  """({task: function that returns the log probability of all texts}, facts)."""
  cpu.retain_freed_memory()
  import gptjax
  from gptjax.evaluate.scoring.evaluated_model import (
    make_evaluated_model,
    make_request,
    request_from_start,
    score_with_journal,
  )
  from gptjax.evaluate.tasks import language_modelling
  model, tokenizer = gptjax.load(folder)
  model.dtype = dtype
  model_under_test = make_evaluated_model(model, tokenizer, batch_size=1)
  scores = lambda requests: score_with_journal(model_under_test, 'benchmark', requests)
  total = lambda requests: sum(score.log_prob for score in scores(requests))
  tokens = lambda: request_from_start(model_under_test, model_under_test.tokenizer.encode(text), 0)
  n_ctx = model_under_test.model.n_ctx
  return ({LAMBADA: lambda: total([make_request(model_under_test, *pair) for pair in pairs]),
           WIKITEXT: lambda: total(language_modelling.windows(*tokens(), n_ctx, n_ctx))},
          {'tokens': {LAMBADA: sum(len(model_under_test.tokenizer.encode(''.join(pair))) for pair in pairs),
                      WIKITEXT: len(tokens().ids) - 1}, 'examples': {LAMBADA: len(pairs)}})


def harness_tasks(folder, dtype, pairs, text):
  """The tasks of the harness, as in `gptjax_tasks`, and its fastest batch size for each task."""
  from types import SimpleNamespace

  from lm_eval.models.huggingface import HFLM
  logging.disable(logging.WARNING)
  models = {size: HFLM(folder, device='cpu', dtype=dtype, batch_size=size) for size in BATCHES[:1]}
  models |= {size: HFLM(models[1].model, tokenizer=folder, device='cpu', batch_size=size)
             for size in BATCHES[1:]}
  pair_requests = [SimpleNamespace(args=pair) for pair in pairs]
  text_requests = [SimpleNamespace(args=(text,))]
  score_pairs = lambda model: model.loglikelihood(pair_requests, disable_tqdm=True)
  tasks = {LAMBADA: lambda model: sum(value for value, _ in score_pairs(model)),
           WIKITEXT: lambda model: sum(model.loglikelihood_rolling(text_requests, disable_tqdm=True))}
  fastest = {}
  for task, run_task in tasks.items():
    seconds = {size: _timed(functools.partial(run_task, model))[0] for size, model in models.items()}
    fastest[task] = min(seconds, key=seconds.get)
  return ({task: functools.partial(run_task, models[fastest[task]]) for task, run_task in tasks.items()},
          {'batch size': fastest})


def _timed(function):
  start = time.perf_counter()
  with contextlib.redirect_stderr(io.StringIO()):  # the harness always draws bars
    value = function()
  return time.perf_counter() - start, value


def worker(contender, dtype, folder, pairs, text):
  """Answer each list of tasks with {task: (seconds, log probability)}."""
  tasks, facts = {OURS: gptjax_tasks, HARNESS: harness_tasks}[contender](folder, dtype, pairs, text)
  return serve(facts, lambda names: {name: _timed(tasks[name]) for name in names})


def save_model(folder, size, tokenizer):
  """Write random weights of a size with GPT-2's vocabulary, for both contenders."""
  import jax

  import gptjax
  from gptjax.data.tokenizers import loading
  from gptjax.model.gpt import GPT
  from gptjax.parallel import sharding
  sharding.ensure_mesh()
  config = make_config(size, 'float32')
  model = jax.jit(functools.partial(GPT, config=config))(jax.random.key(0))
  gptjax.save_pretrained(model, loading.load(tokenizer), folder)


def compare(turns, tokens, dtypes):
  """(rows, gates of `results`, {dtype: the largest relative difference of the log probabilities}).

  Gates compare both contenders in the same dtype, and gptjax in each dtype with the harness in its default
  dtype, that of the weights.
  """
  seconds = {(name, dtype, task): [turn[task][0] for turn in turns[name, dtype]]
             for name, dtype, task in itertools.product((OURS, HARNESS), dtypes, (LAMBADA, WIKITEXT))}
  speedup_in = lambda task, dtype, other: speedup(seconds[OURS, dtype, task], seconds[HARNESS, other, task])
  rows, gates, differences = [], [], {}
  for dtype, task, name in itertools.product(dtypes, (LAMBADA, WIKITEXT), (OURS, HARNESS)):
    rows.append(results.row(f'zero-shot, {task}, {dtype}', name, 'tokens/s',
                            [tokens[task] / each for each in seconds[name, dtype, task]],
                            speedup_in(task, dtype, dtype) if name == HARNESS else None))
  for dtype in dtypes:
    for other, task in itertools.product(dict.fromkeys((dtype, dtypes[0])), (LAMBADA, WIKITEXT)):
      gates.append(results.gate(f'{task}, {dtype}, times as fast as {HARNESS} in {other}', '>=',
                                TARGET_SPEEDUP, speedup_in(task, dtype, other)))
    ours, reference = turns[OURS, dtype][0], turns[HARNESS, dtypes[0]][0]
    differences[dtype] = max(abs(ours[task][1] / reference[task][1] - 1) for task in ours)
  return rows, gates, differences


def print_table(rows, facts):
  """Print the rows and the sizes of both tasks."""
  print(f'{"":<34}{"":<24}{"median":>10}{"min":>10}{"max":>10}  tokens/s')
  for row in rows:
    print(f'{row["what"]:<34}{row["who"]:<24}{row["median"]:>10,.0f}{row["least"]:>10,.0f}{row["most"]:>10,.0f}')
  print(f'{facts["tokens"][LAMBADA]:,} tokens of {LAMBADA} in {facts["examples"][LAMBADA]} passages, '
        f'{facts["tokens"][WIKITEXT]:,} of {WIKITEXT}')


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark evaluate', description=__doc__)
  parser.add_argument('--size', choices=SIZES, default='124M')
  parser.add_argument('--data_dir', type=paths.flag, required=True,
                      help='lambada_test.jsonl and wikitext-2/wiki.test.raw')
  parser.add_argument('--tokenizer', default='gpt2', help='gpt2, or gpt2:FOLDER of its two files')
  parser.add_argument('--passages', type=integer(1, 1_000_000), default=96)
  parser.add_argument('--characters', type=integer(1), default=9_000, help='of WikiText-2')
  parser.add_argument('--dtypes', default='float32,bfloat16', help='compute dtypes of both')
  parser.add_argument('--turns', type=integer(1, 1000), default=5)
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=paths.flag, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(*args.worker, args.folder, *load_texts(args.data_dir, args.passages, args.characters))
  machine, dtypes = machine_info(PACKAGES), args.dtypes.split(',')
  if set(dtypes) - set(DTYPES):
    parser.error(f'--dtypes takes {", ".join(DTYPES)}, comma-separated')
  with tempfile.TemporaryDirectory() as folder:
    save_model(folder, args.size, args.tokenizer)
    worker_command = [sys.executable, '-m', 'gptjax.benchmark', 'evaluate', *argv, f'--folder={folder}',
                      '--worker']
    commands = {who: [*worker_command, *who] for who in itertools.product((OURS, HARNESS), dtypes)}
    answers = interleaved(commands, [LAMBADA, WIKITEXT], args.turns)
  facts = answers[OURS, dtypes[0]][0] | {'batch size': {
    dtype: answers[HARNESS, dtype][0]['batch size'] for dtype in dtypes}}
  turns = {who: turns for who, (_, turns) in answers.items()}
  rows, gates, differences = compare(turns, facts['tokens'], dtypes)
  print(f'GPT-2 {args.size}; {machine["cores"]} cores of {machine["processor"]}, {machine["date"]}; '
        f'{args.turns} turns; the harness at its fastest batch sizes, {facts["batch size"]}\n')
  print_table(rows, facts)
  results.print_gates(gates)
  for dtype, difference in differences.items():
    print(f'log probabilities in {dtype} differ from the harness\'s in {dtypes[0]} by at most '
          f'{difference:.1e}')
  results.write(args.out, 'evaluate', machine, rows, gates, facts=facts, difference=differences,
                turns={f'{who} {dtype}': turns for (who, dtype), turns in turns.items()})
  return 0
