"""Lists the filters of the WebText recipe with examples: python -m gptjax.data.clean
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.clean import parser
  startup.begin('clean', 'stopped', stdout_is_result=True)
  early.handle_help(parser, 'clean', needs_arguments=False)

from gptjax.command import run
from gptjax.command.parsers.clean import parser
from gptjax.data.clean.webtext import FILTER_FUNCTIONS, FILTERS, make_document, make_recipe


def false_positives(name):
  """Return the kinds of text in `clean_examples.FALSE_POSITIVES` that a filter removes."""
  from gptjax.data.clean import clean_examples
  plain = make_recipe('webtext', (), '', '')
  return [kind for kind, text in clean_examples.FALSE_POSITIVES.items()
          if name in FILTER_FUNCTIONS and FILTER_FUNCTIONS[name](make_document(text, {}), plain)]


def main(arguments=()):
  """Print each filter: its rule, an example that it removes, one that it keeps, and false positives."""
  from gptjax.data.clean import clean_examples
  parser().parse_args(arguments)
  for name in FILTERS:
    removed, kept = clean_examples.EXAMPLES[name]
    print(f'{name}: {clean_examples.DESCRIPTIONS[name]}')
    print(f'  removes {removed[1] or ""} {removed[0][:100]!r}')
    print(f'  keeps   {kept[1] or ""} {kept[0][:100]!r}')
    if kinds := false_positives(name):
      print(f'  costs   {", ".join(kinds)}: --clean_without={name} keeps such text')
    print()


if __name__ == '__main__':
  run.run(main, 'clean')
