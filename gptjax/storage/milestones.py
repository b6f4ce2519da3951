"""Milestones: the weights alone of every Nth checkpoint, in `WORKDIR/milestones/STEP`.

A milestone has the files of a checkpoint and is read like one, but its only arrays are `params/...`: a third
of the size with AdamW. It is copied from the complete checkpoint, by process 0 in the background and without
devices. On this machine it is written as `STEP.new` and renamed when it is on disk; in a bucket its manifest
is put last. So it exists completely or not at all.

The copy is made after each save, and when a run resumes at a checkpoint, for each checkpoint that has none. A
milestone is never deleted, unless a rewind discards its step. If the same step is saved again with other
weights, the earlier milestone becomes `STEP.replaced`.
"""


from gptjax.storage import orbax_io, step_folders
from gptjax.storage.files import atomic, records
from gptjax.storage.files.paths import Url
from gptjax.storage.manifest import STATE, file_facts, find_fault, read_manifest, write_manifest

MILESTONES = 'milestones'


def milestone_of(checkpoint):
  """Return the folder of the milestone of a checkpoint, `WORKDIR/checkpoints/STEP`."""
  return checkpoint.parent.parent / MILESTONES / checkpoint.name


def is_copied(checkpoint, manifest):
  """Whether the milestone of a checkpoint exists and has its weights."""
  copy = read_manifest(milestone_of(checkpoint))
  return copy is not None and copy['arrays'] == _weights(manifest)


def copy_weights(checkpoint, abstract_params):
  """Write the milestone of a checkpoint, unless it exists.

  Args:
    checkpoint: its folder. A damaged checkpoint is reported and not copied.
    abstract_params: tree of arrays or jax.ShapeDtypeStruct like the weights.
  """
  manifest = read_manifest(checkpoint)
  if manifest is None or is_copied(checkpoint, manifest):
    return
  if fault := find_fault(checkpoint, manifest):
    records.log(f'checkpoint {checkpoint} is damaged ({fault}): its weights are not copied to a milestone')
    return
  milestone = milestone_of(checkpoint)
  if isinstance(milestone, Url):
    step_folders.begin(milestone)
    _write_weights(milestone, checkpoint, manifest, abstract_params)
    step_folders.complete(milestone, {**manifest, 'arrays': _weights(manifest),
                                      'files': file_facts(milestone)})
    return
  atomic.make_folders(milestone.parent)
  new = milestone.with_name(f'{milestone.name}.new')
  atomic.remove(new)  # of an interrupted copy
  new.mkdir()
  try:
    _write_weights(new, checkpoint, manifest, abstract_params)
    write_manifest(new, {**manifest, 'arrays': _weights(manifest), 'files': file_facts(new)})
    atomic.sync_tree(new)
    if milestone.exists():
      atomic.move_aside(milestone, 'replaced')
    atomic.rename(new, milestone)
  except Exception:
    atomic.remove(new)
    raise


def _write_weights(folder, checkpoint, manifest, abstract_params):
  orbax_io.write_part(folder / STATE, orbax_io.read_part(checkpoint / STATE, {'params': abstract_params}))
  orbax_io.check_stored(folder / STATE, _weights(manifest))


def _weights(manifest):
  """The entries of the weights among the arrays of a manifest."""
  return {name: entry for name, entry in manifest['arrays'].items() if name.startswith('params/')}
