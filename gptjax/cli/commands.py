"""The sub-commands of `gptjax`: module, purpose and example of each; nothing large is imported."""

import argparse
import importlib
from typing import NamedTuple

from gptjax.command import run


class Command(NamedTuple):
  """A sub-command."""
  group: str          # heading in the overview
  module: str         # that `python -m` would run
  purpose: str        # one line
  example: str        # a complete command line
  arguments: tuple = ()  # that precede the user's
  alias: str = ''     # another name


TRAIN, USE, DATA, MACHINE = 'train and evaluate', 'use a model', 'data', 'this machine'

COMMANDS = {
  'pretrain': Command(
    TRAIN, 'gptjax.main', 'train a language model on a corpus',
    'gptjax pretrain --config=quickstart --workdir=runs/quickstart', ('--config.job=pretrain',), 'train'),
  'finetune': Command(
    TRAIN, 'gptjax.main', 'fine-tune a pretrained model on labelled tasks or on text',
    'gptjax finetune --config=gpt1_finetune:sst2 --workdir=runs/sst2 --config.init_from=FOLDER',
    ('--config.job=finetune',)),
  'evaluate': Command(
    TRAIN, 'gptjax.main', 'evaluate a model on zero-shot tasks',
    'gptjax evaluate --config=gpt2_zero_shot --workdir=runs/zero-shot --config.init_from=FOLDER',
    ('--config.job=evaluate',)),
  'glue': Command(
    TRAIN, 'gptjax.finetune.glue', 'write or check a submission to the GLUE benchmark',
    'gptjax glue --workdir=runs/glue --out=submission'),
  'sweep': Command(
    TRAIN, 'gptjax.main', 'train or evaluate a family of sizes, with results over size',
    'gptjax sweep --config=gpt2_sweep --workdir=runs/gpt2_sweep', ('--config.job=sweep',)),
  'plan': Command(
    TRAIN, 'gptjax.plan', 'memory, time and cost of training on hardware that is not here',
    'gptjax plan --config=gpt2_xl --topology=v5e:16x16'),
  'samples': Command(
    TRAIN, 'gptjax.evaluate.samples', "write samples as in the GPT-2 paper's appendix, for the report",
    'gptjax samples contexts --workdir=runs/quickstart --contexts=runs/quickstart/corpus'),
  'report': Command(
    TRAIN, 'gptjax.report', 'write a report of runs, with curves, tables and samples',
    'gptjax report --workdir=runs/quickstart'),
  'generate': Command(
    USE, 'gptjax.generate', 'generate text',
    "gptjax generate --from=runs/quickstart --prompt='The function'"),
  'score': Command(
    USE, 'gptjax.evaluate.score', 'log probability, perplexity and bits per byte of texts',
    'gptjax score --from=runs/quickstart FILE'),
  'export': Command(
    USE, 'gptjax.pretrained', 'export weights and tokenizer for transformers',
    'gptjax export --from=runs/quickstart --to=exported', ('export',)),
  'import': Command(
    USE, 'gptjax.pretrained', 'convert weights of nanoGPT, llm.c or PyTorch to a folder that loads',
    'gptjax import ckpt.pt imported --tokenizer=gpt2', ('import',)),
  'prepare': Command(
    DATA, 'gptjax.data.prepare', 'write a corpus: documents from any source, tokenized',
    "gptjax prepare --source='text:books/*.txt' --tokenizer=train-bpe:8192 --out=corpora/books"),
  'webtext-links': Command(
    DATA, 'gptjax.data.webtext_links', 'list the URLs of WebText, from dumps of Reddit',
    "gptjax webtext-links --source='dumps/RS_*.zst' --out=urls"),
  'languages': Command(
    DATA, 'gptjax.data.languages', 'count documents and bytes per language',
    'gptjax languages --source=corpus:corpora/books'),
  'adopt': Command(
    DATA, 'gptjax.data.adopt', 'make a corpus of files of tokens from another project, in place',
    'gptjax adopt llmc:fineweb10B --tokenizer=gpt2 --out=corpora/fineweb10B'),
  'export-tokens': Command(
    DATA, 'gptjax.data.export', 'write the tokens of a corpus for llm.c or nanoGPT',
    'gptjax export-tokens --from=corpora/books --to=llmc --out=books-llmc'),
  'inspect': Command(
    DATA, 'gptjax.data.inspect', 'check a corpus and show its documents and batches',
    'gptjax inspect corpora/books'),
  'tokenizer': Command(
    DATA, 'gptjax.data.tokenizers', 'train a tokenizer',
    'gptjax tokenizer train --kind=bpe --vocab_size=8192 --source=text:FILE --out=DIR'),
  'clean': Command(
    DATA, 'gptjax.data.clean', 'list the filters of the WebText recipe, with examples', 'gptjax clean'),
  'overlap': Command(
    DATA, 'gptjax.evaluate.overlap', 'overlap of test sets with a training corpus',
    'gptjax overlap --train=corpora/books --test=wiki=text:wiki.txt --workdir=runs/overlap'),
  'benchmark': Command(
    MACHINE, 'gptjax.benchmark', 'measure speed, memory and accuracy',
    'gptjax benchmark train --contenders=gptjax --turns=3'),
  'doctor': Command(
    MACHINE, 'gptjax.cli.doctor', 'versions, devices, kernels, caches, disk, and what is missing',
    'gptjax doctor'),
  'completion': Command(
    MACHINE, 'gptjax.cli.completion', 'print a script that completes commands and flags in a shell',
    'gptjax completion bash > ~/.local/share/bash-completion/completions/gptjax')}
ALIASES = {command.alias: name for name, command in COMMANDS.items() if command.alias}

# The modules that have the parsers; the commands that take a config have absl flags instead.
_PARSERS = {
  'gptjax.generate': 'gptjax.command.parsers.generate', 'gptjax.report': 'gptjax.command.parsers.report',
  'gptjax.pretrained': 'gptjax.command.parsers.pretrained',
  'gptjax.evaluate.score': 'gptjax.command.parsers.score',
  'gptjax.evaluate.samples': 'gptjax.command.parsers.samples',
  'gptjax.data.prepare': 'gptjax.command.parsers.prepare',
  'gptjax.data.webtext_links': 'gptjax.command.parsers.webtext_links',
  'gptjax.data.languages': 'gptjax.command.parsers.languages',
  'gptjax.data.adopt': 'gptjax.command.parsers.adopt',
  'gptjax.data.export': 'gptjax.command.parsers.export_tokens',
  'gptjax.data.inspect': 'gptjax.command.parsers.inspect',
  'gptjax.data.tokenizers': 'gptjax.command.parsers.tokenizer',
  'gptjax.data.clean': 'gptjax.command.parsers.clean',
  'gptjax.evaluate.overlap': 'gptjax.command.parsers.overlap',
  'gptjax.finetune.glue': 'gptjax.command.parsers.glue',
  'gptjax.cli.doctor': 'gptjax.cli.doctor', 'gptjax.cli.completion': 'gptjax.cli.completion'}


def parser(name):
  """Return an argparse parser with all flags of a sub-command, for completion and the reference.

  The parsers of `pretrain`, `finetune`, `evaluate` and `plan` have --config, the flags beside it and all
  fields of the config; these commands themselves parse their flags by absl. That of `benchmark` has the
  subjects.

  Args:
    name: a key of COMMANDS.
  """
  command = COMMANDS[name]
  if command.module in ('gptjax.main', 'gptjax.plan'):
    return _config_parser(command)
  if command.module == 'gptjax.benchmark':
    from gptjax.benchmark import __main__ as benchmark
    made = _empty_parser(command)
    made.add_argument('subject', choices=benchmark.SUBJECTS, help='what to measure')
    return made
  return importlib.import_module(_PARSERS[command.module]).parser(*command.arguments)


def _empty_parser(command):
  return run.Parser(prog=f'python -m {command.module}', description=command.purpose, example=command.example)


def _config_parser(command):
  """The parser of a command that takes a config, made from its absl flags and the declared fields."""
  from absl import flags

  from gptjax import defaults
  from gptjax.config import command_line, files
  module = 'gptjax.config.job_flags' if command.module == 'gptjax.main' else 'gptjax.plan.flags'
  importlib.import_module(module)
  made = _empty_parser(command)
  made.add_argument('--config', metavar='FILE', help='the config, a Python file, or one of gptjax by its '
                    f'name: {", ".join(files.names())}')
  for flag in command_line.flags_of(flags.FLAGS, module):
    if flag.flag_type() == 'bool':
      made.add_argument(f'--{flag.name}', action=argparse.BooleanOptionalAction, help=flag.help,
                        default=flag.default)
    else:
      made.add_argument(f'--{flag.name}', metavar=flag.flag_type().upper(), help=flag.help,
                        default=flag.default)
  for name, field in defaults.declared().items():
    made.add_argument(f'--config.{name}', metavar='VALUE', help=field.meaning.replace('%', '%%'),
                      default=field.default)
  return made
