"""What the commands that take a config do with their flags."""

from absl import flags

from gptjax import defaults, text_checks
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
    fields = flat(known['config'].value)
    if missing := sorted(flat(defaults.fields()).keys() - fields.keys()):
      raise InputError(f'--config={known["config"].config_filename} has no field config.{missing[0]}'
                       f'{f" and {len(missing) - 1} more" if len(missing) > 1 else ""}: begin it with '
                       'config = default.get_config()')
    for field, value in fields.items():
      text_checks.require_sound_json(value, f'config.{field}')
