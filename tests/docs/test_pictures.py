"""The pictures of the documentation are those that the script beside them draws."""

import runpy
import shutil

from conftest import ROOT

PICTURES = ROOT / 'docs' / 'images'


def test_pictures_are_those_of_their_script(tmp_path):
  script = shutil.copy(PICTURES / 'sharding.py', tmp_path)
  runpy.run_path(str(script), run_name='__main__')
  drawn = {path.name: path.read_bytes() for path in tmp_path.glob('*.svg')}
  assert len(drawn) == 4
  assert drawn == {name: (PICTURES / name).read_bytes() for name in drawn}, 'python docs/images/sharding.py'
