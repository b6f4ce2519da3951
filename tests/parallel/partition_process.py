"""Compiles the train step for meshes named on the command line, and first what cannot be partitioned well.

XLA warns on stderr where it gives up a sharding and copies the whole array to all devices; the caller reads
it there, and the line `meshes` between the two parts. No compilation cache: what is cached says nothing.
"""

import json
import sys

import jax
import numpy as np

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_enable_compilation_cache', False)

from conftest import mesh_of, tiny_config  # noqa: E402 (after what it would set otherwise)

from gptjax.plan import program  # noqa: E402


def badly():
  """A matrix that is cut both ways, turned, and cut again as one row."""
  mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2, 2), ('a', 'b', 'c'))
  cut = lambda *axes: jax.NamedSharding(mesh, jax.P(*axes))
  turned = lambda x: jax.lax.with_sharding_constraint(x.T.reshape(-1), cut(('a', 'b', 'c')))
  jax.jit(turned, in_shardings=cut('a', 'b')).lower(np.zeros((8, 8), np.float32)).compile()


badly()
print('meshes', file=sys.stderr, flush=True)
for sizes, changes in json.loads(sys.argv[1]):
  with mesh_of(**sizes) as mesh:
    program.compile_step(tiny_config(**changes), mesh)
