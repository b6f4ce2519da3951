"""CORE compared with transformers, one example at a time, interleaved: python -m gptjax.benchmark core

Both contenders use the same random weights of GPT-2's 124M shape in float32. That of transformers answers as
nanochat does: the prompts of an example are one padded batch, and logits are computed for all positions. Time
includes the encoding of the prompts. The answers must be equal.
"""

import argparse
import functools
import sys
import tempfile
import time

from gptjax.benchmark import results
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.benchmark.subjects.generate import SIZES, TINY
from gptjax.command import run
from gptjax.command.flag_types import integer
from gptjax.kernels import cpu
from gptjax.storage.files import paths

TRANSFORMERS = 'transformers'
CHOICE, REST = 'multiple choice', 'other tasks'
TARGETS = {CHOICE: 3, REST: 1.3}  # times as fast as transformers
PACKAGES = ('jax', 'jaxlib', 'flax', 'torch', 'transformers')


def load_tasks(data_dir, n, labels=()):
  """{label: (CoreTask, its items, indices of those to answer)} of the tasks whose data is in data_dir.

  Few-shot examples are drawn from all items; the first n are answered.

  Args:
    data_dir: the bundle, or a folder of its JSON lines.
    n: items of each task.
    labels: of the tasks; empty: all.
  """
  from gptjax.evaluate.core import bundle, tasks
  from gptjax.evaluate.texts import sources
  found = {}
  for task in tasks.TABLE:
    if labels and task.label not in labels:
      continue
    try:
      task, items = bundle.read(task, sources.DataOptions(data_dir, '', 0))
    except sources.NotRun:
      continue
    found[task.label] = task, items, range(min(n, len(items)))
  return found


def gptjax_answers(folder, tasks):
  """{label: function that returns the answer to each example}."""
  cpu.retain_freed_memory()
  cpu.configure_devices()
  import jax

  import gptjax
  from gptjax.evaluate.core import evaluation, types
  from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
  from gptjax.evaluate.scoring.shared_prefix import score_groups
  model, tokenizer = gptjax.load(folder)
  evaluated = make_evaluated_model(model, tokenizer, batch_size=1)  # the default of the job on a CPU
  jax.config.update('jax_default_matmul_precision', 'highest')

  def answers(task, items, indices):
    kind = types.TYPES[task.type]
    groups = [types.make_requests(evaluated, kind, evaluation.question_prompts(task, items, i, items[i]))
              for i in indices]
    return [types.answer(kind, spans) for spans in score_groups(evaluated, task.label, groups)]

  return {label: functools.partial(answers, *arguments) for label, arguments in tasks.items()}


def transformers_answers(folder, tasks):
  """The tasks of transformers, as in `gptjax_answers`."""
  import torch
  import transformers

  from gptjax.evaluate.core import evaluation
  transformers.utils.logging.set_verbosity_error()
  model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
  tokenizer, end = transformers.AutoTokenizer.from_pretrained(folder), model.config.vocab_size - 1

  @torch.no_grad()
  def score(rows, starts):
    """[(mean loss, whether each is the most likely one)] of the tokens of each row from its start on."""
    tokens = torch.full((len(rows), max(map(len, rows))), end)
    for row, ids in zip(tokens, rows):
      row[:len(ids)] = torch.tensor(ids)
    logits = model(tokens).logits
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:],
                                               reduction='none')
    likeliest = logits.argmax(-1)
    spans = [slice(start - 1, len(ids) - 1) for ids, start in zip(rows, starts)]
    return [(loss[span].mean().item(), bool((best[span] == ids[span.start + 1:span.stop + 1]).all()))
            for loss, best, ids, span in zip(losses, likeliest, tokens, spans)]

  def answer(task, items, i):
    texts = evaluation.question_prompts(task, items, i, items[i])
    rows = [[end, *ids] for ids in tokenizer(texts, split_special_tokens=True)['input_ids']]
    sides = [row[::-1] for row in rows] if task.type == 'schema' else rows
    common = [*(len(set(column)) == 1 for column in zip(*sides)), False].index(False)
    starts = [len(row) - common for row in rows] if task.type == 'schema' else [common] * len(rows)
    cuts = [max(0, len(row) - model.config.n_positions) for row in rows]
    rows, starts = [row[cut:] for row, cut in zip(rows, cuts)], [s - cut for s, cut in zip(starts, cuts)]
    if task.type == 'language_modeling':
      return score(rows[1:], starts[1:])[0][1]
    losses = [loss for loss, _ in score(rows, starts)]
    return losses.index(min(losses))

  answers = lambda task, items, indices: [answer(task, items, i) for i in indices]
  return {label: functools.partial(answers, *arguments) for label, arguments in tasks.items()}


def worker(contender, folder, tasks):
  """Answer each list of labels with {label: (seconds, answers)}."""
  functions = {OURS: gptjax_answers, TRANSFORMERS: transformers_answers}[contender](folder, tasks)
  def timed(label):
    start = time.perf_counter()
    answers = functions[label]()
    return time.perf_counter() - start, answers
  return serve({}, lambda labels: {label: timed(label) for label in labels})


def save_model(folder, size, tokenizer):
  """Write random weights of a size with GPT-2's vocabulary, for both contenders."""
  import jax

  import gptjax
  from gptjax.benchmark.subjects.generate import make_config
  from gptjax.data.tokenizers import loading
  from gptjax.model.gpt import GPT
  from gptjax.parallel import sharding
  sharding.ensure_mesh()
  tokenizer, config = loading.load(tokenizer), make_config(size, 'float32')
  config.model.n_vocab = tokenizer.n_vocab
  model = jax.jit(functools.partial(GPT, config=config))(jax.random.key(0))
  gptjax.save_pretrained(model, tokenizer, folder)


def compare(turns, tasks):
  """(rows, gates of `results`, [(label, index) of each example with different answers]).

  The rows are two of each task, then two of each gate.

  Args:
    turns: {contender: [{label: (seconds, answers)} of each turn]}.
    tasks: of `load_tasks`.
  """
  groups = {CHOICE: [label for label, (task, *_) in tasks.items() if task.type == 'multiple_choice'],
            REST: [label for label, (task, *_) in tasks.items() if task.type != 'multiple_choice']}
  rows, gates = [], []
  parts = {label: [label] for label in tasks} | {group: labels for group, labels in groups.items() if labels}
  for part, labels in parts.items():
    seconds = {who: [sum(turn[label][0] for label in labels) for turn in own] for who, own in turns.items()}
    n, ratio = sum(len(tasks[label][2]) for label in labels), speedup(seconds[OURS], seconds[TRANSFORMERS])
    for who in (OURS, TRANSFORMERS):
      rows.append(results.row(f'CORE, {part}', who, 'examples/s', [n / each for each in seconds[who]],
                              ratio if who == TRANSFORMERS else None))
    if part in TARGETS:
      gates.append(results.gate(f'{part}, times as fast as {TRANSFORMERS}', '>=', TARGETS[part], ratio))
  ours, theirs = turns[OURS][0], turns[TRANSFORMERS][0]
  different = [(label, i) for label in tasks for i, (our_answer, their_answer) in enumerate(
    zip(ours[label][1], theirs[label][1], strict=True)) if our_answer != their_answer]
  return rows, gates, different


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark core', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=[*SIZES, TINY], default='124M',
                      help='of the model; default: %(default)s')
  parser.add_argument('--data_dir', type=paths.flag, required=True,
                      help='the bundle of CORE, or a folder of its JSON lines')
  parser.add_argument('--tokenizer', default='gpt2', help='gpt2, or gpt2:FOLDER of its two files')
  parser.add_argument('--examples', type=integer(1, 100_000), default=4, help='of each task')
  parser.add_argument('--tasks', default='', help='labels, comma-separated; default: all whose data is there')
  parser.add_argument('--turns', type=integer(1, 1000), default=3,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  results.add_out(parser)
  parser.add_argument('--worker', choices=[OURS, TRANSFORMERS], help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=paths.flag, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  tasks = load_tasks(args.data_dir, args.examples, [label for label in args.tasks.split(',') if label])
  if not tasks:
    parser.error(f'{args.data_dir} has no data of {args.tasks or "CORE"}')
  if args.worker:
    return worker(args.worker, args.folder, tasks)
  machine = machine_info(PACKAGES)
  with tempfile.TemporaryDirectory() as folder:
    save_model(folder, args.size, args.tokenizer)
    command = [sys.executable, '-m', 'gptjax.benchmark', 'core', *argv, f'--folder={folder}']
    commands = {who: [*command, f'--worker={who}'] for who in (OURS, TRANSFORMERS)}
    answers = interleaved(commands, list(tasks), args.turns)
  turns = {who: own for who, (_, own) in answers.items()}
  rows, gates, different = compare(turns, tasks)
  n = sum(len(indices) for *_, indices in tasks.values())
  print(f'CORE, GPT-2 {args.size}; {machine["cores"]} cores of {machine["processor"]}, {machine["date"]}; '
        f'{args.turns} turns of {n} examples of {len(tasks)} tasks\n\n{"examples/s":<44}{OURS:>10}'
        f'{TRANSFORMERS:>14}{"speed-up":>10}')
  for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
    print(f'{ours["what"]:<44}{ours["median"]:>10.2f}{theirs["median"]:>14.2f}{theirs["ratio"]:>9.2f}x')
  results.print_gates(gates)
  print(f'{len(different)} of {n} answers differ' + ''.join(f'; {label}, {i}' for label, i in different))
  groups = rows[-2 * len(gates):]
  results.write(args.out, 'core', machine, groups, gates, tasks=rows[:-2 * len(gates)], different=different,
                turns=turns)
  return 0 if not different else 1
