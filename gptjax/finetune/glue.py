"""Writes or checks a complete submission to the GLUE benchmark (gluebenchmark.com).

    python -m gptjax.finetune.glue --workdir=runs/glue [--workdir=runs/mnli ...] --out=submission
    python -m gptjax.finetune.glue --check=submission

OUT gets the eleven files of the benchmark, of which each workdir has those of its tasks, and submission.zip
with the same files, to be uploaded. AX.tsv, the diagnostic set, is predicted by the model of MNLI. Every file
is checked: its name, its columns `index` and `prediction`, the number of its rows, and each prediction.

--wnli=majority predicts not_entailment for all of WNLI, as the authors of BERT did: its accuracy of 65.1 was
above that of every trained system submitted until then (Devlin et al. 2019, appendix B.1).
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.glue import parser
  startup.begin('glue', 'stopped; run the same command again')
  early.handle_help(parser, 'glue')

import io
import zipfile
from typing import NamedTuple

from gptjax.command import run
from gptjax.command.parsers.glue import parser
from gptjax.errors import InputError
from gptjax.storage.files import access, paths
from gptjax.text.words import plural

NLI, TWO_WAY = ('entailment', 'neutral', 'contradiction'), ('entailment', 'not_entailment')
NUMBERS = '0', '1'
HEAD, ZIP = 'index\tprediction', 'submission.zip'
PREDICTIONS = 'predictions'  # folder of a workdir


class File(NamedTuple):
  """A file of a submission: its number of rows, and its labels; (): a number between 0 and 5."""
  rows: int
  labels: tuple


# Rows: of the test sets of the benchmark; QNLI in version 2.
FILES = {'CoLA': File(1063, NUMBERS), 'SST-2': File(1821, NUMBERS), 'MRPC': File(1725, NUMBERS),
         'STS-B': File(1379, ()), 'QQP': File(390_965, NUMBERS), 'MNLI-m': File(9796, NLI),
         'MNLI-mm': File(9847, NLI), 'QNLI': File(5463, TWO_WAY), 'RTE': File(3000, TWO_WAY),
         'WNLI': File(146, NUMBERS), 'AX': File(1104, NLI)}


def fault(name, text):
  """The first fault of a file as text; None if it is valid.

  Args:
    name: a key of FILES.
    text: content of the file.
  """
  expected = FILES[name]
  head, *lines = text.removesuffix('\n').split('\n')
  if head != HEAD:
    return f'line 1 is {head[:60]!r}, not {HEAD!r}'
  for row, line in enumerate(lines):
    index, _, prediction = line.partition('\t')
    if index != str(row):
      return f'line {row + 2} has the index {index[:60]!r}, not {row}'
    if not _is_valid(prediction, expected.labels):
      wanted = ', '.join(expected.labels) or 'a number from 0 to 5'
      return f'line {row + 2} has the prediction {prediction[:60]!r}, not {wanted}'
  if len(lines) != expected.rows:
    return f'it has {plural(len(lines), "row")}, not {expected.rows:,}'
  return None


def _is_valid(prediction, labels):
  if labels:
    return prediction in labels
  try:
    return 0 <= float(prediction) <= 5
  except ValueError:
    return False


def faults(folder):
  """{file name: its fault, or None} of the eleven files in a folder, here or in a bucket."""
  found = {}
  for name in FILES:
    path = folder / f'{name}.tsv'
    try:
      found[path.name] = fault(name, access.read(path).decode())
    except FileNotFoundError:
      found[path.name] = 'it is missing'
    except UnicodeDecodeError:
      found[path.name] = 'it is not UTF-8'
  return found


def majority():
  """The content of WNLI.tsv with not_entailment, 0, for every example."""
  return '\n'.join([HEAD, *(f'{row}\t0' for row in range(FILES['WNLI'].rows))]) + '\n'


def collect(workdirs, wnli):
  """{name: bytes} of the files of a submission.

  Args:
    workdirs: list of locations of fine-tuning runs.
    wnli: 'predicted' or 'majority'.

  Raises:
    InputError: a folder is not a workdir, or a file is in none of the workdirs, or in several.
  """
  contents = {'WNLI': majority().encode()} if wnli == 'majority' else {}
  missing = []
  for workdir in workdirs:
    if not access.is_file(workdir / 'config.json'):
      raise InputError(f'{workdir} is not a workdir: it has no config.json of a run')
  for name in [name for name in FILES if name not in contents]:
    places = [path for path in (workdir / PREDICTIONS / f'{name}.tsv' for workdir in workdirs)
              if access.is_file(path)]
    if len(places) > 1:
      raise InputError(f'{name}.tsv is in {" and in ".join(map(str, places))}: give only one of the workdirs')
    if places:
      contents[name] = access.read(places[0])
    else:
      missing.append(name)
  if missing:
    files = ', '.join(f'{name}.tsv' for name in missing)
    raise InputError(f'{files} {"is" if len(missing) == 1 else "are"} in no workdir: run the tasks with '
                     '--predict' + (' (AX: mnli)' if 'AX' in missing else '')
                     + (', or use --wnli=majority for WNLI' if 'WNLI' in missing else ''))
  return {name: contents[name] for name in FILES}


def write(contents, out):
  """Write the files and submission.zip; the same content gives the same bytes."""
  archive = io.BytesIO()
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as zipped:
    for name, content in contents.items():
      zipped.writestr(zipfile.ZipInfo(f'{name}.tsv'), content, zipfile.ZIP_DEFLATED)
  access.make_folder(out)
  for name, content in contents.items():
    access.write(out / f'{name}.tsv', content)
  access.write(out / ZIP, archive.getvalue())


def main(arguments):
  flags = parser().parse_args(arguments)
  if bool(flags.check) == bool(flags.workdir or flags.out) or bool(flags.workdir) != bool(flags.out):
    raise InputError('give either --workdir and --out, to write a submission, or --check, to check one')
  folder = paths.location(flags.check or flags.out)
  if flags.check and not access.is_folder(folder):
    raise InputError(f'{folder} is not a folder: --check takes the folder that --out has written')
  if not flags.check:
    write(collect([paths.location(workdir) for workdir in flags.workdir], flags.wnli), folder)
  found = faults(folder)
  for name, problem in found.items():
    print(f'{name:<12}{problem or "valid"}')
  if wrong := [name for name, problem in found.items() if problem]:
    raise InputError(f'{folder} is not a valid submission: {plural(len(wrong), "file")} of {len(FILES)} '
                     f'{"is" if len(wrong) == 1 else "are"} wrong, see above (a run with '
                     'config.finetune.limit predicts only the first examples)')
  print(f'submission  {folder if flags.check else folder / ZIP}')


if __name__ == '__main__':
  run.run(main, 'glue')
