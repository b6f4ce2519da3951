"""The pretraining job.

  console      Log lines of a pretraining run: at its start, at its steps, and its summary.
  evaluation   The held-out loss of a pretraining run.
  loop         The pretraining job: everything around the train step.
  preparation  Preparation of a pretraining run: its corpus, its number of steps, and the first files in its
               workdir.
  rewind       Rewinds after a loss spike: return to an older checkpoint and skip the batches before the
               spike.
  sweep        The job sweep: trains or evaluates a family of sizes, one after the other, and reports all of
               them.
  trace        The train step traced for the shapes of a config, which needs neither weights nor a batch.
"""
