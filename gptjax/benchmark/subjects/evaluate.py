"""Zero-shot scoring compared with lm-evaluation-harness, interleaved: python -m gptjax.benchmark evaluate

Both contenders use the same random weights of GPT-2's 124M shape, in float32 and in bfloat16; the harness
runs its own Hugging Face model at the fastest of a few batch sizes. They score passages of LAMBADA (the last
words) and the start of WikiText-2's raw test set (all tokens). Their log probabilities must agree. On a CPU,
the matmuls of all batches alone are measured too (see `gptjax.benchmark.limits`).
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
from types import SimpleNamespace

from gptjax.benchmark import limits, matmuls, results
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.subjects.generate import SIZES, make_config
from gptjax.command import run
from gptjax.command.flag_types import integer
from gptjax.errors import InputError
from gptjax.kernels import cpu
from gptjax.storage.files import paths

OURS, HARNESS = 'gptjax', 'lm-evaluation-harness'
DTYPES = 'float32', 'bfloat16'
LAMBADA, WIKITEXT = 'LAMBADA', 'WikiText-2'
BATCH = 1       # for gptjax, see `EvaluatedModel`
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


def require_texts(data_dir, *limits_of_texts):
  """Raise InputError unless `load_texts` finds both texts."""
  from gptjax.evaluate.texts.sources import NotRun
  try:
    load_texts(data_dir, *limits_of_texts)
  except NotRun:
    raise InputError(f'--data_dir={data_dir} is not a folder with lambada_test.jsonl and '
                     'wikitext-2/wiki.test.raw: see docs/reference/formats.md') from None


def gptjax_tasks(folder, dtype, pairs, text):
  """({task: function that returns the log probability of all texts}, facts)."""
  cpu.retain_freed_memory()
  cpu.configure_devices()
  import gptjax
  from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model, score_with_journal
  model, tokenizer = gptjax.load(folder)
  model.dtype = dtype
  model_under_test = make_evaluated_model(model, tokenizer, batch_size=BATCH)
  requests = functools.partial(make_requests, model_under_test, pairs, text)
  encode = model_under_test.tokenizer.encode
  scores = lambda requests: score_with_journal(model_under_test, 'benchmark', requests)
  total = lambda task: sum(score.log_prob for score in scores(requests(task)))
  n_tokens = sum(len(request.ids) - request.start for request in requests(WIKITEXT))
  return ({task: functools.partial(total, task) for task in (LAMBADA, WIKITEXT)},
          {'tokens': {LAMBADA: sum(len(encode(''.join(pair))) for pair in pairs), WIKITEXT: n_tokens},
           'examples': {LAMBADA: len(pairs)}})


def make_requests(evaluated, pairs, text, task):
  """The requests of a task: one per passage of LAMBADA, or the windows of the text."""
  from gptjax.evaluate.scoring.evaluated_model import make_request, request_from_start
  from gptjax.evaluate.tasks import language_modelling
  if task == LAMBADA:
    return [make_request(evaluated, *pair) for pair in pairs]
  n_ctx = evaluated.model.n_ctx
  return language_modelling.windows(*request_from_start(evaluated, evaluated.tokenizer.encode(text), 0),
                                    n_ctx, n_ctx)


def matmuls_of_tasks(config, tokenizer, pairs, text):
  """{task: [matmuls.Matmul] of all its batches}."""
  from gptjax.data.tokenizers import loading
  from gptjax.evaluate.scoring import scores
  n_ctx, found = config.model.n_ctx, {}
  evaluated = SimpleNamespace(model=SimpleNamespace(n_ctx=n_ctx), tokenizer=loading.load(tokenizer))
  for task in (LAMBADA, WIKITEXT):
    requests = make_requests(evaluated, pairs, text, task)
    batches = scores.make_batches(requests, range(len(requests)), n_ctx, BATCH, shards=1)
    found[task] = matmuls.merged(
      matmul for _, tokens, _, targets in batches for matmul in
      matmuls.of_batch(config, *tokens.shape, targets.size, scores.MAX_LOGITS[1]))
  return found


def harness_tasks(folder, dtype, pairs, text):
  """The tasks of the harness, as in `gptjax_tasks`, and its fastest batch size for each task."""
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


def with_limits(rows, answers, dtypes):
  """The rows, those of gptjax with their shares of the limits that were measured."""
  fields = {}
  for dtype, task in itertools.product(dtypes, (LAMBADA, WIKITEXT)):
    seconds = [turn[task][0] for turn in answers[OURS, dtype][1]]
    of_dtype = {name: answer for (name, other), answer in answers.items() if other == dtype}
    fields[what_of(task, dtype)] = limits.matmul_fields(seconds, of_dtype, task)
  return [row | fields[row['what']] if row['who'] == OURS else row for row in rows]


def what_of(task, dtype):
  """The name of a measured quantity."""
  return f'zero-shot, {task}, {dtype}'


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
    rows.append(results.row(what_of(task, dtype), name, 'tokens/s',
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
    values = ''.join(f'{row[name]:>10,.0f}' for name in ('median', 'least', 'most'))
    print(f'{row["what"]:<34}{row["who"]:<24}{values}   {limits.described(row)}'.rstrip())
  print(f'{facts["tokens"][LAMBADA]:,} tokens of {LAMBADA} in {facts["examples"][LAMBADA]} passages, '
        f'{facts["tokens"][WIKITEXT]:,} of {WIKITEXT}')


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark evaluate', description=__doc__)
  parser.add_argument('--size', choices=SIZES, default='124M',
                      help='of the model; default: %(default)s')
  parser.add_argument('--data_dir', type=paths.flag, required=True,
                      help='lambada_test.jsonl and wikitext-2/wiki.test.raw')
  parser.add_argument('--tokenizer', default='gpt2', help='gpt2, or gpt2:FOLDER of its two files')
  parser.add_argument('--passages', type=integer(1, 1_000_000), default=96)
  parser.add_argument('--characters', type=integer(1), default=9_000, help='of WikiText-2')
  parser.add_argument('--dtypes', default='float32,bfloat16', help='compute dtypes of both')
  parser.add_argument('--turns', type=integer(1, 1000), default=5,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  results.add_out(parser)
  limits.add_flag(parser)
  parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=paths.flag, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    texts = load_texts(args.data_dir, args.passages, args.characters)
    name, dtype = args.worker
    if name in limits.WORKERS:
      return limits.serve_worker(name, lambda: matmuls_of_tasks(
        make_config(args.size, dtype), args.tokenizer, *texts))
    return worker(name, dtype, args.folder, *texts)
  require_texts(args.data_dir, args.passages, args.characters)
  machine, dtypes = machine_info(PACKAGES), args.dtypes.split(',')
  if set(dtypes) - set(DTYPES):
    parser.error(f'--dtypes takes {", ".join(DTYPES)}, comma-separated')
  with tempfile.TemporaryDirectory() as folder:
    save_model(folder, args.size, args.tokenizer)
    worker_command = [sys.executable, '-m', 'gptjax.benchmark', 'evaluate', *argv, f'--folder={folder}',
                      '--worker']
    names = OURS, HARNESS, *limits.available(args)
    commands = {who: [*worker_command, *who] for who in itertools.product(names, dtypes)}
    answers = interleaved(commands, [LAMBADA, WIKITEXT], args.turns)
  facts = answers[OURS, dtypes[0]][0] | {'batch size': {
    dtype: answers[HARNESS, dtype][0]['batch size'] for dtype in dtypes}}
  turns = {who: turns for who, (_, turns) in answers.items()}
  rows, gates, differences = compare(turns, facts['tokens'], dtypes)
  rows = with_limits(rows, answers, dtypes)
  gates += limits.gates(rows)
  print(f'GPT-2 {args.size}; {machine["cores"]} cores of {machine["processor"]}, {machine["date"]}; '
        f'{args.turns} turns; the harness at its fastest batch sizes, {facts["batch size"]}\n')
  print_table(rows, facts)
  named = {f'{name} {dtype}': answer for (name, dtype), answer in answers.items()}
  limits.print_answers(named)
  results.print_gates(gates)
  for dtype, difference in differences.items():
    print(f'log probabilities in {dtype} differ from the harness\'s in {dtypes[0]} by at most '
          f'{difference:.1e}')
  results.write(args.out, 'evaluate', machine, rows, gates, facts=facts, difference=differences,
                limits=limits.medians(named),
                turns={f'{who} {dtype}': turns[who, dtype] for who in (OURS, HARNESS) for dtype in dtypes})
  return 0
