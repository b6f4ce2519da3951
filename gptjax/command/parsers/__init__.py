"""The flags of each command, in modules that import nothing large, so that --help is fast.

Each module has a function `parser()` that returns the `run.Parser` of a command. The descriptions are the
docstrings of the commands' modules. The flags beside a config are in `gptjax.config.job_flags` and
`gptjax.plan.flags`.

  adopt          of gptjax.data.adopt
  clean          of gptjax.data.clean
  export_tokens  of gptjax.data.export
  generate       of gptjax.generate
  glue           of gptjax.finetune.glue
  inspect        of gptjax.data.inspect
  languages      of gptjax.data.languages
  overlap        of gptjax.evaluate.overlap
  prepare        of gptjax.data.prepare
  pretrained     of gptjax.pretrained
  report         of gptjax.report
  samples        of gptjax.evaluate.samples
  score          of gptjax.evaluate.score
  stage_flags    of commands whose work consists of stages: which share this process runs, and on what
  tokenizer      of gptjax.data.tokenizers
  webtext_links  of gptjax.data.webtext_links
"""

import ast
from pathlib import Path


def docstring(module):
  """Return the docstring of a module of gptjax, which is not imported.

  Args:
    module: its path, `data/prepare.py` for example.
  """
  path = Path(__file__).parents[2] / module
  return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
