"""The command: python -m gptjax.benchmark [SUBJECT] [flags]; without a name the subject is `train`."""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('gptjax.benchmark', 'stopped')

import importlib

from gptjax.command import run, shutdown
from gptjax.errors import InputError
from gptjax.parallel import jax_settings

NOT_SUBJECTS = ('gpu', 'table')  # `gpu` runs other sub-commands, `table` shows their results
SUBJECTS = ('train', 'finetune', 'data', 'generate', 'evaluate', 'overlap', 'scaling', 'recipes',
            'start', 'gpu', 'attention', 'check', 'variants', 'profile', 'near_duplicates', 'table')


def main(argv):
  if argv[:1] in (['--help'], ['-h']):
    print(f'usage: python -m gptjax.benchmark [SUBJECT] [flags]\n\nsubjects: {", ".join(SUBJECTS)}; default: '
          'train\nSUBJECT --help lists the flags of a subject')
    return 0
  named = bool(argv) and not argv[0].startswith('-')
  subject, flags = (argv[0], argv[1:]) if named else ('train', argv)
  if subject not in SUBJECTS:
    raise InputError(f'unknown subject {subject!r}: use one of {", ".join(SUBJECTS)}')
  jax_settings.use_jax()
  folder = 'gptjax.benchmark' if subject in NOT_SUBJECTS else 'gptjax.benchmark.subjects'
  module = importlib.import_module(f'{folder}.{subject}')
  shutdown.unwind_on_signal('ending all processes that it has started')
  return module.main(flags)


if __name__ == '__main__':
  run.run(main, 'gptjax.benchmark')
