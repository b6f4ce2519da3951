"""The command: python -m gptjax.benchmark [SUBJECT] [flags]; without a name the subject is `train`."""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('gptjax.benchmark', 'stopped')

import importlib

from gptjax.command import run, shutdown
from gptjax.errors import InputError
from gptjax.parallel import jax_settings

ABOUT_ALL = ('gpu', 'table')  # what runs other subjects, or shows what they wrote
SUBJECTS = ('train', 'finetune', 'data', 'generate', 'evaluate', 'overlap', 'scaling', 'recipes',
            'start', 'gpu', 'attention', 'check', 'variants', 'profile', 'near_duplicates', 'table')


def main(argv):
  if argv[:1] in (['--help'], ['-h']):
    print(f'usage: python -m gptjax.benchmark [SUBJECT] [flags]\n\nsubjects: {", ".join(SUBJECTS)}; without '
          'one: train\nSUBJECT --help lists its flags')
    return 0
  named = bool(argv) and not argv[0].startswith('-')
  subject, flags = (argv[0], argv[1:]) if named else ('train', argv)
  if subject not in SUBJECTS:
    raise InputError(f'{subject!r} is not one of {", ".join(SUBJECTS)}')
  jax_settings.use_jax()
  folder = 'gptjax.benchmark' if subject in ABOUT_ALL else 'gptjax.benchmark.subjects'
  module = importlib.import_module(f'{folder}.{subject}')
  shutdown.unwind_on_signal('ending all that it has started')
  return module.main(flags)


if __name__ == '__main__':
  run.run(main, 'gptjax.benchmark')
