"""The WebText recipe (GPT-2, section 2.1), as far as it can be done on text in hand.

The paper names "de-duplication and some heuristic based cleaning", takes Wikipedia out and means to
keep English only. It gives no numbers; the ones here are ours, with their origin beside
them. Each filter has a name, can be switched off by it, and is counted; the first one that removes
a document counts it. The two kinds of duplicates are found in `duplicates`, after all others.

    python -m gptjax.data.clean      lists the filters, each with what it removes and keeps
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('clean', 'stopped', product=True)

from gptjax.command import run
from gptjax.data.clean.webtext import FILTER_FUNCTIONS, FILTERS, make_document, make_recipe


def false_positives(name):
  """The kinds of text in `clean_examples.COSTS` that a filter removes, wanted or not."""
  from gptjax.data.clean import clean_examples
  plain = make_recipe('webtext', (), '', '')
  return [kind for kind, text in clean_examples.FALSE_POSITIVES.items()
          if name in FILTER_FUNCTIONS and FILTER_FUNCTIONS[name](make_document(text, {}), plain)]


def main(arguments=()):
  """Prints each filter: what it does, an example of what it removes and keeps, what it costs elsewhere."""
  from gptjax.data.clean import clean_examples
  run.Parser(prog='python -m gptjax.data.clean', description='Lists the filters, each with an '
                 'example of what it removes and of what it keeps.').parse_args(arguments)
  for name in FILTERS:
    removed, kept = clean_examples.EXAMPLES[name]
    print(f'{name}: {clean_examples.DESCRIPTIONS[name]}')
    print(f'  removes {removed[1] or ""} {removed[0][:100]!r}')
    print(f'  keeps   {kept[1] or ""} {kept[0][:100]!r}')
    if lost := false_positives(name):
      print(f'  costs   {", ".join(lost)}: --clean_without={name} keeps such text')
    print()


if __name__ == '__main__':
  run.run(main, 'clean')
