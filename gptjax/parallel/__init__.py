"""Devices and processes: the mesh, who belongs to a run, how its processes start, agree and end.

  cluster            Is this process one of several, and which? Decided from flags and environment variables
                     alone.
  compiling          How the processes of a run compile: all have a program before one runs it, and each
                     caches its own.
  coordinator        The address of the coordinator, which is process 0, and how JAX starts there.
  jax_settings       Settings of JAX that come from the environment and not from the config: JAX_* variables
                     and XLA_FLAGS.
  libtpu             libtpu on a machine without TPUs, where `gptjax.plan` compiles with it and nothing else
                     needs it.
  local_devices      Which GPUs of its node a process uses: all that it was given, and none that another
                     process uses.
  processes          The processes of a run as one: they start together, agree, and end together.
  rendezvous         Where the processes of a run meet before JAX starts: who has not come is named after a
                     minute.
  rendezvous_server  Process 0's side of the rendezvous: who connects proves that it belongs to the run, and
                     is counted.
  run_token          The token of a run: a secret that its processes share, by which they know each other at
                     the rendezvous.
  sharding           The mesh, and which of its axes each logical axis lies on. No other file names a mesh
                     axis.
  watchdog           Ends a run that hangs: no progress for too long, and it shows where it stands and exits
                     with 70.
  wire               What processes send each other before JAX starts: lines of JSON, of which none is
                     trusted.
"""
