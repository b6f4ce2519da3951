"""Files and folders: paths, atomic writes, records with checksums, JSON of others within limits.

  atomic          Files and folders that are there whole or not at all, after a kill, a crash or a power loss.
  bounded         Files and JSON from anyone, read within limits.
  json_files      JSON files of others: bounded, without surprises, and of the layout that the reader states.
  lfs             Git LFS pointers: small text files that stand in for large ones in a clone without `git
                  lfs`.
  literal_path    Paths for libraries that read some characters of a path as something else.
  paths           Paths as users write them, made absolute once, where they enter: flags, config fields,
                  arguments.
  private_folder  Folders that hold programs: whoever can write to one decides what is run from it.
  records         Records that a run reads back, with a checksum: one that was damaged on disk is found, and
                  not used.
  run_config      `config.json` of a workdir: the fields of its run, checked as they are read.
"""
