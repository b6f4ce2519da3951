"""The flags of `gptjax.plan` in addition to --config."""

import sys

from absl import flags

from gptjax.config import command_line

USAGE = command_line.Usage(
  'python -m gptjax.plan', __name__,
  'Plans the training of a config on hardware that is not available: memory, time per step and cost.',
  'python -m gptjax.plan --config=configs/gpt2_xl.py --topology=v5e:16x16',
  ('job', 'train.batch_size', 'train.microbatch_size', 'train.steps', 'data.seq_len', 'model.n_layer',
   'model.n_head', 'model.n_embd', 'model.n_ctx', 'model.dropout', 'model.remat', 'attention.kernel',
   'optimizer.name', 'mesh.replica', 'mesh.data', 'mesh.fsdp', 'mesh.tensor'))

flags.DEFINE_string('topology', None, 'Devices: v5e:16x16, v5p:4x4x8; two slices: v5e:16x16x2; GPUs: h100:8, '
                    'a100:8, 16 hosts of eight: h100:8x16.')
flags.DEFINE_bool('search', False, 'Search for the best mesh, remat and microbatch size, and rank the plans.')
flags.DEFINE_bool('kernels', False, 'Compile the attention of one layer with each kernel and block size.')
flags.DEFINE_integer('few', 3, 'Number of best candidates that the search compiles.', lower_bound=1,
                     upper_bound=1000)
flags.DEFINE_float('price', 0.0, 'Dollars per device and hour; 0: no costs are shown.', lower_bound=0,
                   upper_bound=1e6)


def handle_help(argv=None):
  """Call `command_line.handle_help` for this command; `argv` is by default that of the process."""
  command_line.handle_help(flags.FLAGS, argv or sys.argv, USAGE, 'gptjax')
