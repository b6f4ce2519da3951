"""What a run says: on the console while it goes, and as a page when it is done.

    python -m gptjax.report --workdir=runs/gpt2_small --workdir=runs/gpt2_medium

writes report.html, which holds all that it shows, and report.md with its figures beside it.
"""

import sys

if sys.argv[:1] == ['-m']:  # Python has this while it imports the package of `python -m gptjax.report`
  from gptjax.command import startup
  from gptjax.parallel import jax_settings
  startup.begin('report', 'stopped')
  jax_settings.begin('report')
