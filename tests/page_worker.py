"""Runs the Python blocks of one page in one namespace: reads them from stdin, each as a line of JSON.

For each block a line of JSON is written to the file given as the argument: {"error": traceback or ''}.
A block that begins with `>>> ` is a doctest, whose output is compared.
"""

import doctest
import json
import sys
import traceback

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(code, name, namespace):
  """Run one block; returns what is wrong, '' if nothing is."""
  try:
    if code.lstrip().startswith('>>> '):
      return run_doctest(code, name, namespace)
    exec(compile(code, name, 'exec'), namespace)
  except BaseException:
    return traceback.format_exc()
  return ''


def run_doctest(code, name, namespace):
  said, runner = [], doctest.DocTestRunner(optionflags=OPTIONS)
  test = doctest.DocTestParser().get_doctest(code, namespace, name, name, 0)
  runner.run(test, out=said.append, clear_globs=False)
  namespace.update(test.globs)
  return ''.join(said)


def main(results):
  sys.path[0] = ''  # the page's folder, as in an interactive Python
  namespace = {'__name__': '__main__'}
  for line in sys.stdin:
    block = json.loads(line)
    error = run(block['code'], block['name'], namespace)
    sys.stdout.flush()
    with open(results, 'a') as file:
      file.write(json.dumps({'error': error}) + '\n')


if __name__ == '__main__':
  main(sys.argv[1])
