"""Core hours, memory and disk per TB of the stages of prepare: python -m gptjax.benchmark prepare

The stages of `gptjax prepare --clean=webtext` run as tasks, each a process of its own, on texts of three
sizes. The processor time of a stage is a start and a time per byte, fitted to the three by least squares; the
latter is extrapolated to 1 TB. That holds because no stage reads what grows faster than the text: `judge` and
`encode` read each document once, `mark` sorts keys of documents, which are divided into ranges, and `join`
copies tokens. Memory is not extrapolated: parts have at least 8 MiB of text here, and up to 1 GiB in a corpus
of 4 TiB, but what a task holds of a part is bounded (`judge` a segment of keys, `mark` a range).

Then the largest text is prepared by one and by several tasks at the same time, and with as many --workers. A
text that is larger than its source has copies with other words of the same lengths, so that none is a
duplicate.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.benchmark import results
from gptjax.benchmark.machine import machine_info
from gptjax.command import bars, run, shutdown
from gptjax.command.flag_types import WORKERS, Listed, integer, real
from gptjax.data.corpus import corpus_manifest
from gptjax.data.sources import documents
from gptjax.data.stages import run as stages
from gptjax.errors import InputError
from gptjax.storage.files import paths

STAGES = tuple(stages.STAGES)
DOCUMENT = 2400  # characters at least, up to the next empty line, as of a web page
FREQUENT = 200   # words that all copies share, so that a copy passes the same filters
STRAIGHT = 0.1   # deviation from the line that a time may have, as a share of the time of the largest text
POLL = 0.01      # seconds
TB = 1e12


class Cost(NamedTuple):
  """Of all tasks of one stage."""
  wall: float   # seconds
  cpu: float    # seconds of processors
  memory: int   # bytes of the largest process
  disk: int     # bytes of results


def pages(text):
  """Yield parts of a text, of DOCUMENT characters and the rest of a paragraph."""
  start = 0
  while start < len(text):
    end = text.find('\n\n', start + DOCUMENT)
    end = len(text) if end < 0 else end
    if page := text[start:end].strip():
      yield page
    start = end


def write_text(source, tfds_dir, megabytes, path):
  """Write documents of a source as JSON lines, in as many copies with other words as are needed.

  Returns:
    (bytes of text, number of documents).
  """
  texts = [text for unit in documents.units([source], tfds_dir)
           for piece in documents.usable_pieces(unit, '', tfds_dir) for text in pages(piece.text)]
  if not texts:
    raise InputError(f'--source={source} has no text')
  counts = collections.Counter(word for text in texts for word in text.split(' '))
  common = {word for word, _ in counts.most_common(FREQUENT)}
  by_length = collections.defaultdict(list)
  for word in sorted(counts.keys() - common):
    by_length[len(word)].append(word)
  size, n, copy, others = 0, 0, 0, {}
  with open(path, 'w', encoding='utf-8') as file:
    while True:
      for text in texts:
        if size >= megabytes * 1e6:
          return size, n
        text = ' '.join(others.get(word, word) for word in text.split(' '))
        file.write(json.dumps({'text': text}) + '\n')
        size, n = size + len(text.encode()), n + 1
      copy += 1
      others = {word: words[(i + copy) % len(words)] for words in by_length.values()
                for i, word in enumerate(words)}


def run_together(commands):
  """Run commands at the same time; returns (seconds, processor seconds, bytes of the largest process)."""
  children, messages, cpu, memory = [], [], 0.0, 0
  start = time.perf_counter()
  try:
    with shutdown.block_signals():
      for command in commands:
        messages.append(tempfile.TemporaryFile())
        children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages[-1]))
    while running := [child for child in children if child.returncode is None]:
      for child in running:
        memory = max(memory, peak_memory(child.pid))  # `ru_maxrss` begins with the memory of this process
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
          child.returncode = os.waitstatus_to_exitcode(status)
          cpu += usage.ru_utime + usage.ru_stime
          if child.returncode:
            file = messages[children.index(child)]
            file.seek(0)
            lines = file.read().decode(errors='replace').strip().splitlines() or ['no message']
            raise InputError(f'{" ".join(child.args[2:])} failed: {lines[-1]}')
      time.sleep(POLL)
    return time.perf_counter() - start, cpu, memory
  finally:
    for child in children:
      if child.returncode is None:
        child.kill()
        child.wait()
    for file in messages:
      file.close()


def peak_memory(pid):
  """Bytes of memory that a process has had at most; 0 if it has ended."""
  try:
    found = re.search(r'VmHWM:\s*(\d+) kB', Path(f'/proc/{pid}/status').read_text())
  except OSError:
    return 0
  return int(found[1]) * 1024 if found else 0


def size_of(folder):
  """Bytes of all files below a folder."""
  return sum(file.stat().st_size for file in Path(folder).rglob('*') if file.is_file())


def prepare_in_stages(flags, out, n_tasks):
  """{stage: Cost} of preparing with n_tasks tasks of each stage at the same time."""
  costs, before = {}, 0
  for stage in STAGES:
    command = [sys.executable, '-m', 'gptjax', 'prepare', *flags, f'--out={out}', '--workers=1',
               f'--stage={stage}', f'--tasks={n_tasks}']
    n = 1 if stage == 'tokenizer' else n_tasks
    figures = run_together([[*command, f'--task={task}'] for task in range(n)])
    after = size_of(out)
    costs[stage] = Cost(*figures, after if stage == 'join' else after - before)  # `join` removes the work
    before = after
  return costs


def line(sizes, seconds):
  """(seconds at 0 bytes, seconds per byte, largest deviation as a share of the last time): least squares."""
  slope, start = np.polyfit(sizes, seconds, 1)
  deviation = np.abs(start + slope * np.array(sizes) - seconds).max()
  return float(start), float(slope), float(deviation / seconds[-1])


def table(sizes, costs, n_documents):
  """[{'stage', 'hours', 'start', 'deviation', 'memory', 'per_document', 'disk'} of each stage].

  hours: of a processor per TB, 0 where the fit is negative; memory: bytes of the largest process;
  per_document: bytes by which it grows with each document; disk: bytes of results per byte of text.
  """
  rows = []
  for stage in STAGES:
    start, slope, deviation = line(sizes, [each[stage].cpu for each in costs])
    memory = [each[stage].memory for each in costs]
    rows.append({'stage': stage, 'hours': max(slope, 0) * TB / 3600, 'start': start,
                 'deviation': deviation, 'memory': max(memory),
                 'per_document': float(np.polyfit(n_documents, memory, 1)[0]),
                 'disk': costs[-1][stage].disk / sizes[-1]})
  return rows


def speeds(flags, folder, counts):
  """[(name, seconds, tokens per second)] of preparing a text with each number of tasks and of workers."""
  found = []
  for kind in ('tasks', 'workers'):
    for n in counts:
      out = f'{folder}/{kind}-{n}'
      if kind == 'tasks':
        seconds = sum(cost.wall for cost in prepare_in_stages(flags, out, n).values())
      else:
        command = [sys.executable, '-m', 'gptjax', 'prepare', *flags, f'--out={out}', f'--workers={n}']
        seconds = run_together([command])[0]
      manifest = corpus_manifest.read_manifest(out)
      tokens = sum(split['tokens'] for split in manifest['splits'].values())
      found.append((f'{n} {kind if n > 1 else kind[:-1]}', seconds, tokens / seconds))
  return found


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark prepare', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--source', required=True, help='KIND:PATH, as for `gptjax prepare`; English documents')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='folder of the data sets for tfds:')
  parser.add_argument('--tokenizer', default='gpt2', help='gpt2, or gpt2:FOLDER of its two files')
  parser.add_argument('--megabytes', type=Listed(real(0.1, 1e6)), default=(25, 50, 100),
                      help='of text; at least three sizes, ascending')
  parser.add_argument('--tasks', type=Listed(integer(1, WORKERS)), default=(1, 2),
                      help='numbers of tasks at the same time, and of workers')
  results.add_out(parser)
  flags = parser.parse_args(argv)
  if len(flags.megabytes) < 3 or sorted(set(flags.megabytes)) != list(flags.megabytes):
    parser.error('--megabytes needs at least three sizes in ascending order')
  machine, sizes, n_documents, costs = machine_info(('numpy', 'tiktoken')), [], [], []
  with tempfile.TemporaryDirectory() as folder:
    options = ['--clean=webtext', f'--tokenizer={flags.tokenizer}']
    for megabytes in bars.bar(flags.megabytes, desc='stages', unit='size', leave=False):
      file = f'{folder}/{megabytes}.jsonl'
      size, n = write_text(flags.source, flags.tfds_dir, megabytes, file)
      costs.append(prepare_in_stages([f'--source=jsonl:{file}', *options], f'{folder}/{megabytes}', 1))
      sizes.append(size)
      n_documents.append(n)
    found = speeds([f'--source=jsonl:{file}', *options], folder, flags.tasks)
  table_rows = table(sizes, costs, n_documents)
  print(f'{machine["processor"]}, {machine["cores"]} cores, {machine["date"]}; '
        f'{", ".join(f"{size / 1e6:.1f}" for size in sizes)} MB, {n_documents[-1]:,} documents\n\n'
        f'{"stage":<11}{"core hours per TB":>18}{"off the line":>14}{"memory, MB":>12}{"bytes/document":>16}'
        f'{"disk, TB per TB":>17}')
  for row in table_rows:
    print(f'{row["stage"]:<11}{row["hours"]:>18.1f}{row["deviation"]:>13.1%}{row["memory"] / 1e6:>13.0f}'
          f'{row["per_document"]:>16.0f}{row["disk"]:>17.2f}')
  print(f'{"all":<11}{sum(row["hours"] for row in table_rows):>18.1f}\n')
  for name, seconds, speed in found:
    print(f'{name:<11}{seconds:>8.1f} s{speed:>14,.0f} tokens/s{found[0][1] / seconds:>8.2f} x')
  rows = [results.row('prepare --clean=webtext, processor time per TB', row['stage'], 'h', [row['hours']])
          for row in table_rows]
  rows += [results.row('prepare --clean=webtext', name, 'tokens/s', [speed]) for name, _, speed in found]
  gates = [results.gate(f'{row["stage"]}: deviation from the line, share of the time', '<=', STRAIGHT,
                        row['deviation']) for row in table_rows if row['hours'] > 1]
  results.print_gates(gates)
  results.write(flags.out, 'prepare', machine, rows, gates, stages=table_rows, sizes=sizes,
                documents=n_documents, costs=[{name: list(cost) for name, cost in each.items()}
                                              for each in costs])
  return int(not all(gate['holds'] for gate in gates))
