"""The console script `gptjax`, also `python -m gptjax`: one command with a sub-command for each task.

A sub-command runs the module that `python -m gptjax.NAME` runs, in this process and with the same flags.

  bucket_rows  What `gptjax doctor` says of buckets: package, credentials, and whether the service answers.
  commands     The sub-commands: module, purpose and example of each.
  completion   `gptjax completion`: prints a script that completes sub-commands and flags in a shell, by
               shtab.
  dispatch     The main function: finds the sub-command and runs its module.
  doctor       `gptjax doctor`: versions, devices, kernels, caches, disk, and what is missing for which extra.
"""
