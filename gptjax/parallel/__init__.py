"""Devices and processes: the mesh, and how the processes of a run connect, synchronize and end.

  agreement          Decisions that all processes of a run take after the same step: to stop, and to save
                     because of the time.
  cluster            Detect whether this process is one of several, and which one, from flags and environment
                     variables.
  compiling          Compilation in runs of several processes: no process runs a program before all have
                     compiled it.
  control            Control messages between the processes of a run: requests, roll calls, and why the run
                     ends.
  coordinator        The address of the coordinator (process 0), and the start of JAX's coordination service.
  jax_settings       Settings of JAX that come from the environment and not from the config: JAX_* variables
                     and XLA_FLAGS.
  libtpu             Configuration of libtpu on machines without TPUs, where only `gptjax.plan` uses it, to
                     compile.
  local_devices      The GPUs of its node that a process uses: all that it is assigned, and none of another
                     process.
  processes          The processes of a run: they start together, agree on values and decisions, and shut down
                     together.
  rendezvous         The rendezvous of the processes of a run before JAX starts; after a minute, missing
                     processes are reported.
  rendezvous_server  Process 0's side of the rendezvous: accept, authenticate and register the other
                     processes.
  run_token          The token of a run: a secret that its processes share, with which they authenticate at
                     the rendezvous.
  sharding           The mesh, and the mesh axes over which each logical axis is sharded. No other file uses
                     names of mesh axes.
  watchdog           Ends a run that makes no progress: dumps the stacks of all threads and exits with 70.
  wire               The wire format of processes before JAX starts: lines of JSON, none of which is trusted.
"""
