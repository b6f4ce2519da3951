"""The flags of gptjax.data.clean, which has none."""

from gptjax.command.run import Parser


def parser():
  return Parser(prog='python -m gptjax.data.clean',
                description='Lists the filters of the WebText recipe, each with an example that it removes '
                'and one that it keeps.', example='python -m gptjax.data.clean')
