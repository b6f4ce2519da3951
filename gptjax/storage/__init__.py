"""The stored state of a run: checkpoints, their manifests, the ownership of a workdir.

  bucket_files
              The file system that Orbax uses for buckets: the requests of `files.buckets`.
  bucket_ownership
              Exclusive ownership of a folder in a bucket: numbered records of its owners, with heartbeats.
  checkpoint  Verified checkpoints: Orbax writes the arrays, then a manifest records their digests.
  digests     64-bit digests of arrays, computed on their devices and independent of the mesh.
  literal_path
              Paths for libraries that interpret some characters of a path.
  manifest    The manifest of a checkpoint: JSON that lists its arrays and files with digests, and its own
              digest.
  milestones  Milestones: the weights alone of every Nth checkpoint, in `WORKDIR/milestones/STEP`.
  orbax_io    Writing, checking and restoring arrays with Orbax.
  orbax_s3    Orbax on `s3://`, which it does not support itself: what is changed in it, for paths of `s3://`
              alone.
  owner_record
              The record of the owner of a folder: host, process, start time and a random token.
  ownership   Exclusive ownership of a folder by one process: a record of the owner in `owner.json`, and a
              lock on it.
  retention   Which checkpoints of a run are kept, and the deletion of the others.
  rewind_log  The rewinds of a run: `WORKDIR/rewinds.json`, which decides which batch each step reads.
  step_folders
              The folders of checkpoints, `WORKDIR/checkpoints/STEP`: begun, completed, set aside and deleted.
"""

import os

# TensorStore, which reads these when it is loaded, repeats a request on which no byte has come for this time;
# else it would wait for ever.
os.environ.setdefault('TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS', '30')
os.environ.setdefault('TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES', '1')
