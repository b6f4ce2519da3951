"""The pretraining job.

  console  What a pretraining run says: when it begins, at its steps, and at its end.
  loop     The pretraining job: all that happens around the step, and nothing that the step computes.
  rewind   Going back after a loss spike: to an older checkpoint, past the batches that led to the spike.
"""
