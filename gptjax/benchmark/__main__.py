"""The command: python -m gptjax.benchmark [SUBJECT] [flags]; without a name the subject is `train`."""

import importlib

from gptjax import settings
from gptjax.data import command
from gptjax.errors import InputError

SUBJECTS = ('train', 'finetune', 'data', 'generate', 'evaluate', 'overlap', 'scaling', 'recipes',
            'start', 'gpu', 'attention', 'check', 'variants', 'profile', 'near_duplicates', 'table')


def main(argv):
  named = bool(argv) and not argv[0].startswith('-')
  subject, flags = (argv[0], argv[1:]) if named else ('train', argv)
  if subject not in SUBJECTS:
    raise InputError(f'{subject!r} is not one of {", ".join(SUBJECTS)}')
  settings.use_jax()
  return importlib.import_module(f'gptjax.benchmark.{subject}').main(flags)


if __name__ == '__main__':
  command.run(main, 'gptjax.benchmark')
