"""Metrics of a run while it is training, and reports of finished runs.

    python -m gptjax.report --workdir=runs/gpt2_small --workdir=runs/gpt2_medium

writes report.html, a single file, and report.md with a folder of figures.
"""

import sys

if sys.argv[:1] == ['-m']:  # while Python imports the package for `python -m gptjax.report`
  from gptjax.command import early, startup
  from gptjax.command.parsers import report
  from gptjax.parallel import jax_settings
  startup.begin('report', 'stopped')
  early.handle_help(report.parser, 'report')
  jax_settings.begin('report')
