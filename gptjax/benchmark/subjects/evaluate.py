"""Zero-shot scoring beside lm-evaluation-harness, by turns in one run: python -m gptjax.benchmark evaluate

The same random weights of GPT-2's 124M shape in both, in float32 and in bfloat16, the harness with its own
Hugging Face model at the fastest of a few batch sizes; passages of LAMBADA (their last words) and the
beginning of WikiText-2's raw test set (all of its tokens). What both find must agree.
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
from gptjax.benchmark.machine import machine
from gptjax.benchmark.subjects.generate import SIZES, make_config
from gptjax.benchmark.turns import by_turns, serve, times_faster
from gptjax.command import run
from gptjax.command.flag_types import integer
from gptjax.files import paths
from gptjax.kernels import cpu

OURS, THEIRS = 'gptjax', 'lm-evaluation-harness'
DTYPES = 'float32', 'bfloat16'
LAMBADA, WIKITEXT = 'LAMBADA', 'WikiText-2'
BATCHES = 1, 8  # of the harness, of which the fastest counts
PACKAGES = ('jax', 'jaxlib', 'flax', 'torch', 'transformers', 'lm_eval')
WANTED = 2  # times as fast


def texts(data_dir, passages, characters):
  """([(text before, last word with its space)], the beginning of WikiText-2)."""
  from gptjax.evaluate.tasks import lambada, language_modelling
  from gptjax.evaluate.texts import sources
  data = sources.DataOptions(data_dir, '', passages)
  found = lambada.read(data)[lambada.OPENAI]
  lines = language_modelling.read(language_modelling.SETS[0], data._replace(limit=0))
  pairs = [lambada.split_last_word(text) for text in found]
  return pairs, ''.join(lines)[:characters]


def ours(folder, dtype, pairs, text):
  """({task: function that gives the log probability of all}, facts)."""
  cpu.keep_memory()
  import gptjax
  from gptjax.evaluate.scoring.evaluated_model import (
    make_evaluated_model,
    make_request,
    request_after_end_of_text,
    score_with_journal,
  )
  from gptjax.evaluate.tasks import language_modelling
  model, tokenizer = gptjax.load(folder)
  model.dtype = dtype
  tested = make_evaluated_model(model, tokenizer, batch_size=1)
  total = lambda requests: sum(score.log_prob for score in score_with_journal(tested, 'benchmark', requests))
  tokens = lambda: request_after_end_of_text(tested, tested.tokenizer.encode(text), 0)
  n_ctx = tested.model.n_ctx
  return ({LAMBADA: lambda: total([make_request(tested, *pair) for pair in pairs]),
           WIKITEXT: lambda: total(language_modelling.windows(*tokens(), n_ctx, n_ctx))},
          {'tokens': {LAMBADA: sum(len(tested.tokenizer.encode(''.join(pair))) for pair in pairs),
                      WIKITEXT: len(tokens().ids) - 1}, 'examples': {LAMBADA: len(pairs)}})


def theirs(folder, dtype, pairs, text):
  """The same of the harness, and its fastest batch size for each task."""
  from types import SimpleNamespace

  from lm_eval.models.huggingface import HFLM
  logging.disable(logging.WARNING)
  models = {size: HFLM(folder, device='cpu', dtype=dtype, batch_size=size) for size in BATCHES[:1]}
  models |= {size: HFLM(models[1].model, tokenizer=folder, device='cpu', batch_size=size)
             for size in BATCHES[1:]}
  asked = [SimpleNamespace(args=pair) for pair in pairs]
  whole = [SimpleNamespace(args=(text,))]
  work = {LAMBADA: lambda model: sum(value for value, _ in model.loglikelihood(asked, disable_tqdm=True)),
          WIKITEXT: lambda model: sum(model.loglikelihood_rolling(whole, disable_tqdm=True))}
  fastest = {}
  for task, do in work.items():
    seconds = {size: _timed(functools.partial(do, model))[0] for size, model in models.items()}
    fastest[task] = min(seconds, key=seconds.get)
  return ({task: functools.partial(do, models[fastest[task]]) for task, do in work.items()},
          {'batch size': fastest})


def _timed(do):
  began = time.perf_counter()
  with contextlib.redirect_stderr(io.StringIO()):  # the harness draws bars, asked or not
    value = do()
  return time.perf_counter() - began, value


def worker(contender, dtype, folder, pairs, text):
  tasks, facts = {OURS: ours, THEIRS: theirs}[contender](folder, dtype, pairs, text)
  return serve(facts, lambda names: {name: _timed(tasks[name]) for name in names})


def save_model(folder, size, tokenizer):
  """Writes random weights of a size with GPT-2's vocabulary, for both."""
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
  """(rows, gates of `results`, {dtype: the largest relative difference of what both find}).

  Gates compare both in the same dtype, and gptjax in each with the harness as it comes: in the weights' own.
  """
  seconds = {(name, dtype, task): [turn[task][0] for turn in turns[name, dtype]]
             for name, dtype, task in itertools.product((OURS, THEIRS), dtypes, (LAMBADA, WIKITEXT))}
  faster = lambda task, dtype, other: times_faster(seconds[OURS, dtype, task], seconds[THEIRS, other, task])
  rows, gates, off = [], [], {}
  for dtype, task, name in itertools.product(dtypes, (LAMBADA, WIKITEXT), (OURS, THEIRS)):
    rows.append(results.row(f'zero-shot, {task}, {dtype}', name, 'tokens/s',
                            [tokens[task] / each for each in seconds[name, dtype, task]],
                            faster(task, dtype, dtype) if name == THEIRS else None))
  for dtype in dtypes:
    for other, task in itertools.product(dict.fromkeys((dtype, dtypes[0])), (LAMBADA, WIKITEXT)):
      gates.append(results.gate(f'{task}, {dtype}, times as fast as {THEIRS} in {other}', '>=', WANTED,
                                faster(task, dtype, other)))
    found, wanted = turns[OURS, dtype][0], turns[THEIRS, dtypes[0]][0]
    off[dtype] = max(abs(found[task][1] / wanted[task][1] - 1) for task in found)
  return rows, gates, off


def show(rows, facts):
  print(f'{"":<34}{"":<24}{"median":>10}{"least":>10}{"most":>10}  tokens/s')
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
  parser.add_argument('--dtypes', default='float32,bfloat16', help='that both compute in')
  parser.add_argument('--turns', type=integer(1, 1000), default=5)
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=paths.flag, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(*args.worker, args.folder, *texts(args.data_dir, args.passages, args.characters))
  where, dtypes = machine(PACKAGES), args.dtypes.split(',')
  if set(dtypes) - set(DTYPES):
    parser.error(f'--dtypes are of {", ".join(DTYPES)}')
  with tempfile.TemporaryDirectory() as folder:
    save_model(folder, args.size, args.tokenizer)
    worker_command = [sys.executable, '-m', 'gptjax.benchmark', 'evaluate', *argv, f'--folder={folder}',
                      '--worker']
    found = by_turns({who: [*worker_command, *who] for who in itertools.product((OURS, THEIRS), dtypes)},
                     [LAMBADA, WIKITEXT], args.turns)
  facts = found[OURS, dtypes[0]][0] | {'batch size': {
    dtype: found[THEIRS, dtype][0]['batch size'] for dtype in dtypes}}
  turns = {who: turns for who, (_, turns) in found.items()}
  rows, gates, off = compare(turns, facts['tokens'], dtypes)
  print(f'GPT-2 {args.size}; {where["cores"]} cores of {where["processor"]}, {where["date"]}; '
        f'{args.turns} turns; the harness at its fastest batch sizes, {facts["batch size"]}\n')
  show(rows, facts)
  results.show_gates(gates)
  for dtype, by in off.items():
    print(f'log probabilities in {dtype} differ from the harness\'s in {dtypes[0]} by {by:.1e} at most')
  results.write(args.out, 'evaluate', where, rows, gates, facts=facts, difference=off,
                turns={f'{who} {dtype}': turns for (who, dtype), turns in turns.items()})
  return 0
