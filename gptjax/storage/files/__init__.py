"""Files and folders: paths, atomic writes, records with checksums, untrusted JSON within limits.

  access          Files of runs and corpora, on this machine or in a bucket: the same functions for a Path and
                  for a Url.
  atomic          Atomic writes of files and folders, which survive a kill, a crash or a power loss.
  bounded         Untrusted files and JSON, read within limits.
  buckets         Objects in buckets: `gs://` through gcsfs, `s3://` through s3fs, both over fsspec.
  cache           Copies, on this machine, of what is in a bucket, shared by the runs that read it.
  hub_names       Names of models on the Hugging Face Hub, told apart from paths.
  json_files      Untrusted JSON files: bounded, strict, and checked against a layout.
  lfs             Git LFS pointers: small text files that stand in for large ones in a clone without `git
                  lfs`.
  local           Files of this machine that are read or written in parts: shards, logs, columns.
  locks           Locks of open files (`flock`), on file systems that have them.
  parts           Files of lines that grow, `NAME.jsonl`: on this machine one file; in a bucket, immutable
                  parts of it.
  paths           Paths of flags, config fields and arguments, made absolute where they are read.
  private_folder  Folders of compiled programs, which no other user may write to.
  records         JSON records with a checksum, so that damage on disk is detected.
  run_config      `config.json` of a workdir: the fields of its run, checked when read.
  spool           Folders of this machine for what a process writes as files and then puts into a bucket.
"""
