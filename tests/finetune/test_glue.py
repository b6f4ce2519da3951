"""A submission to GLUE: complete, of the benchmark's form, and refused where it is not."""

import zipfile

import pytest

from gptjax.finetune import glue
from gptjax.finetune.tasks import published

# The first labels, of which a valid prediction is one.
FIRST = {name: expected.labels[0] if expected.labels else '2.500' for name, expected in glue.FILES.items()}


def text_of(name, rows=None):
  rows = glue.FILES[name].rows if rows is None else rows
  return '\n'.join([glue.HEAD, *(f'{row}\t{FIRST[name]}' for row in range(rows))]) + '\n'


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  """Two workdirs: MNLI's files in the second one."""
  made = []
  for names in (glue.FILES.keys() - {'MNLI-m', 'MNLI-mm', 'AX'}, ('MNLI-m', 'MNLI-mm', 'AX')):
    folder = tmp_path_factory.mktemp('run')
    (folder / glue.PREDICTIONS).mkdir()
    (folder / 'config.json').write_text('{}')
    for name in names:
      (folder / glue.PREDICTIONS / f'{name}.tsv').write_text(text_of(name))
    made.append(folder)
  return made


def test_the_tasks_write_the_files_of_the_benchmark():
  of_tasks = {file: task for task in published.TASKS.values() if task.glue for file in task.test}
  assert of_tasks.keys() == glue.FILES.keys()
  for file, task in of_tasks.items():
    labels = task.classes if task.glue == 'name' else tuple(map(str, range(len(task.classes))))
    assert set(labels) == set(glue.FILES[file].labels), file


def test_a_submission_has_all_files_and_is_valid(workdirs, tmp_path, capsys):
  out = tmp_path / 'submission'
  glue.main([*(f'--workdir={folder}' for folder in workdirs), f'--out={out}'])
  said = capsys.readouterr().out
  assert said.count(' valid\n') == 11 and str(out / glue.ZIP) in said
  with zipfile.ZipFile(out / glue.ZIP) as zipped:
    assert sorted(zipped.namelist()) == sorted(f'{name}.tsv' for name in glue.FILES)
    assert all(zipped.read(name) == (out / name).read_bytes() for name in zipped.namelist())
  before = (out / glue.ZIP).read_bytes()
  glue.main([*(f'--workdir={folder}' for folder in workdirs), f'--out={out}', '--wnli=majority'])
  assert (out / glue.ZIP).read_bytes() == before, 'the labels of WNLI are those of the majority'
  glue.main([f'--check={out}'])
  (out / 'QQP.tsv').write_text(text_of('QQP', 100))
  (out / 'AX.tsv').unlink()
  capsys.readouterr()
  with pytest.raises(ValueError, match=r'2 files of 11 are wrong.*config\.finetune\.limit'):
    glue.main([f'--check={out}'])
  said = capsys.readouterr().out
  assert 'QQP.tsv     it has 100 rows, not 390,965' in said and 'AX.tsv      it is missing' in said


def test_missing_and_ambiguous_files_are_refused(workdirs, tmp_path):
  one, other = workdirs
  with pytest.raises(ValueError, match=r'^MNLI-m\.tsv, MNLI-mm\.tsv, AX\.tsv are in no workdir: run the '
                     r'tasks with --predict \(AX: mnli\)$'):
    glue.main([f'--workdir={one}', f'--out={tmp_path / "out"}'])
  with pytest.raises(ValueError, match=r'\.tsv is in .* and in .*: give only one'):
    glue.main([f'--workdir={one}', f'--workdir={other}', f'--workdir={one}', f'--out={tmp_path / "out"}'])
  assert not (tmp_path / 'out').exists()
  with pytest.raises(ValueError, match='typo is not a workdir'):
    glue.main([f'--workdir={tmp_path / "typo"}', f'--out={tmp_path / "out"}'])
  with pytest.raises(ValueError, match='typo is not a folder: --check takes'):
    glue.main([f'--check={tmp_path / "typo"}'])
  for flags in ([], ['--check=a', '--out=b'], [f'--workdir={one}']):
    with pytest.raises(ValueError, match='give either --workdir and --out'):
      glue.main(flags)


VALID = text_of('RTE')
@pytest.mark.parametrize('name, text, says', [
  ('RTE', VALID, None), ('RTE', VALID.removesuffix('\n'), None), ('STS-B', text_of('STS-B'), None),
  ('RTE', VALID.replace('index', 'id'), "line 1 is 'id"), ('RTE', VALID.replace('\t', ','), 'line 1 is'),
  ('RTE', VALID.replace('\n7\t', '\n8\t'), "line 9 has the index '8', not 7"),
  ('RTE', VALID.replace('\n7\tentailment', '\n7\t1'), "line 9 has the prediction '1', not entailment"),
  ('RTE', VALID + '3000\tentailment\n', 'it has 3,001 rows, not 3,000'), ('RTE', '', "line 1 is ''"),
  ('RTE', VALID + '\n', "line 3002 has the index ''"), ('WNLI', text_of('WNLI', 145), 'it has 145 rows'),
  ('STS-B', text_of('STS-B').replace('\n0\t2.500', '\n0\t5.001'), 'not a number from 0 to 5'),
  ('STS-B', text_of('STS-B').replace('\n0\t2.500', '\n0\tnan'), 'not a number from 0 to 5'),
  ('CoLA', text_of('CoLA').replace('\n0\t0', '\n0\tacceptable'), 'not 0, 1')])
def test_a_fault_is_found(name, text, says):
  found = glue.fault(name, text)
  assert found is None if says is None else says in found
