"""What the commands that take a config do with their flags."""

from absl import flags

from gptjax import text_checks
from gptjax.errors import InputError


def read(known, argv, needed, example):
  """Reads absl's flags, the fields of the config among them.

  Args:
    known: `absl.flags.FLAGS`.
    argv: of the process.
    needed: names of flags that must be there.
    example: what to look at where one of them is not.

  Raises:
    InputError: one line, for what does not exist, does not fit, is missing or is not valid Unicode.
  """
  text_checks.escape_output()
  text_checks.require_sound_arguments(argv)
  try:
    rest = known(argv)
  except (AttributeError, KeyError) as error:
    from gptjax.config import unknown_field
    raise InputError(unknown_field(argv) or str(error)) from None
  except (flags.Error, TypeError, OSError) as error:
    raise InputError(' '.join(str(error.args[0] if error.args else error).split())) from None
  if len(rest) > 1:
    raise InputError(f'{rest[1]!r} is not a flag: fields are set by --config.FIELD=VALUE')
  for name in needed:
    if not known[name].value:
      raise InputError(f'--{name} is missing: {example}')
  if known['config'].value:
    from gptjax.config import flat
    for field, value in flat(known['config'].value).items():
      text_checks.require_sound_json(value, f'config.{field}')
