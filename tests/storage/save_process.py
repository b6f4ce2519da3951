"""How long a save holds up the next step, which overwrites the state in place: save_process.py FOLDER."""

import sys
import time

from gptjax.kernels import cpu

cpu.retain_freed_memory()  # as gptjax.main does

import jax  # noqa: E402

from gptjax.parallel import sharding  # noqa: E402
from gptjax.storage.checkpoint import Checkpoints  # noqa: E402
from gptjax.storage.retention import Rules  # noqa: E402


def main(folder):
  """Saves 1.6 GB six times, a step after each; the first save also touches memory for the first time."""
  keys = jax.random.split(jax.random.key(0), 24)
  state = jax.jit(lambda: {str(i): jax.random.normal(keys[i], (4096, 4096)) for i in range(24)})()
  step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
  saves = Checkpoints(folder, Rules(1, 0), {})
  state = jax.block_until_ready(step(state))
  began = time.monotonic()
  for _ in range(3):
    state = jax.block_until_ready(step(state))
  alone = (time.monotonic() - began) / 3
  for number in range(1, 7):
    began = time.monotonic()
    saves.save(state, number)
    state = jax.block_until_ready(step(state))
    held_up = time.monotonic() - began - alone
    saves.wait()
    took = time.monotonic() - began
    print(held_up / took, f'{held_up:.3f} s of {took:.3f} s', flush=True)
  saves.close()


if __name__ == '__main__':
  with jax.set_mesh(sharding.single_mesh()):
    main(sys.argv[1])
