"""What a run keeps: checkpoints, their manifests, who owns a workdir.

  checkpoint  Checkpoints that can be trusted: Orbax writes the arrays, a manifest written last vouches for
              them.
  digests     Digests of arrays: 64 bits that do not depend on the mesh, computed where the array lies.
  manifest    The manifest of a checkpoint: JSON that names its arrays and files with their digests, and its
              own.
  orbax_io    All that knows how Orbax keeps arrays: writing them, opening what was written, restoring.
  ownership   One process at a time writes to a folder: `owner.json` names it, and a lock on that file ends
              with it.
  rewind_log  The rewinds of a run: `WORKDIR/rewinds.json`, which decides what batch each step reads.
"""
