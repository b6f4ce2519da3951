"""A process that writes metrics like a run: WORKDIR START STEPS; `saved N` when N could be a checkpoint."""

import sys
import time

from gptjax.report import telemetry
from gptjax.storage.files import parts


def metrics(step):
  return {'train/loss': 10 / step, 'train/tokens_per_second': 100.0 + step}


def write_steps(log, start, steps, flush_every=5, pause=0.0):
  for step in range(start + 1, steps + 1):
    log.write(step, metrics(step))
    if step % flush_every == 0:
      log.flush()
      print(f'saved {step}', flush=True)
    time.sleep(pause)


if __name__ == '__main__':
  parts.PART_SECONDS = 0.2
  workdir, start, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
  log = telemetry.Telemetry(workdir, steps, tensorboard=False)
  log.begin(start)
  print('started', flush=True)
  write_steps(log, start, steps, pause=0.015)
  log.close()
