"""The flags of `gptjax.main` in addition to --config: workdir, processes, sizes, predictions; its help."""

import sys

from absl import flags

from gptjax.config import command_line

EXAMPLES = {
  '': 'python -m gptjax.main --config=configs/quickstart.py --workdir=runs/quickstart',
  'pretrain': 'python -m gptjax.main --config=configs/quickstart.py --workdir=runs/quickstart',
  'finetune': 'python -m gptjax.main --config=configs/gpt1_finetune.py:sst2 --workdir=runs/sst2 '
              '--config.init_from=FOLDER',
  'evaluate': 'python -m gptjax.main --config=configs/gpt2_zero_shot.py --workdir=runs/zero-shot '
              '--config.init_from=FOLDER --config.eval.data_dir=data',
  'sweep': 'python -m gptjax.main --config=configs/gpt2_sweep.py --workdir=runs/gpt2_sweep'}
PURPOSES = {
  '': 'Runs the job of a config: pretraining, fine-tuning, evaluation or a sweep over sizes.',
  'pretrain': 'Trains a language model on a corpus.',
  'finetune': 'Fine-tunes a pretrained model on labelled tasks or on text.',
  'evaluate': 'Evaluates a model on zero-shot tasks, without training.',
  'sweep': 'Trains or evaluates a family of sizes, each in WORKDIR/SIZE, and reports results over size.'}
_SHAPE = ('model.n_layer', 'model.n_head', 'model.n_embd', 'model.n_ctx')
_DEVICES = ('mesh.data', 'mesh.fsdp', 'mesh.tensor')
_PRETRAINING = (
  'init_from', 'data.corpus', 'data.source', 'data.tokenizer', 'data.seq_len', 'train.steps', 'train.epochs',
  'train.batch_size', 'train.microbatch_size', 'train.seed', 'optimizer.learning_rate',
  'optimizer.warmup_steps', *_SHAPE, 'model.dropout', 'model.remat', *_DEVICES, 'checkpoint.every_steps',
  'eval.every_steps', 'log.every_steps')
FIELDS = {  # shown by --help
  '': ('job', *_PRETRAINING),
  'pretrain': _PRETRAINING,
  'finetune': (
    'init_from', 'finetune.tasks', 'finetune.data_dir', 'finetune.n_seeds', 'finetune.train',
    'finetune.limit', 'data.tfds_dir', 'train.epochs', 'train.batch_size', 'train.microbatch_size',
    'train.seed', 'optimizer.learning_rate', *_DEVICES, 'eval.every_steps'),
  'evaluate': ('init_from', 'eval.tasks', 'eval.data_dir', 'eval.limit', 'eval.grid', 'eval.batch_size',
               'eval.n_ctx', 'model.compute_dtype', *_DEVICES),
  'sweep': ('sweep.sizes', 'sweep.tasks', 'data.corpus', 'train.steps', 'train.batch_size', 'train.seed',
            'optimizer.learning_rate', *_DEVICES, 'checkpoint.every_steps', 'eval.every_steps',
            'eval.data_dir', 'eval.limit')}

flags.DEFINE_string('workdir', None, 'Folder of the run; an existing run is resumed. Default: '
                    'runs/NAME for the config NAME.py.')
flags.DEFINE_boolean('predict', False, 'Fine-tuning: also write WORKDIR/predictions for the test sets.')
flags.DEFINE_list('size', [], 'Sweep: run only these sizes, comma-separated; the report has all that '
                  'have begun.')
flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0; not needed on Cloud TPU, Slurm, Open MPI '
                    'and GKE, where the processes of a run discover each other.')
flags.DEFINE_integer('num_processes', None, 'Number of processes of the run, with --coordinator; 1: a single '
                     'process, whatever the environment variables are.',
                     lower_bound=1, upper_bound=2**20)
flags.DEFINE_integer('process_id', None, 'Index of this process, from 0; with --coordinator.',
                     lower_bound=0, upper_bound=2**20 - 1)


def usage(job=''):
  """Return the command_line.Usage of a job; '': of all."""
  return command_line.Usage('python -m gptjax.main', __name__, PURPOSES[job], EXAMPLES[job], FIELDS[job])


def handle_help(argv=None):
  """Call `command_line.handle_help` for the job that --config.job names.

  Args:
    argv: by default that of the process.
  """
  argv = argv or sys.argv
  command_line.handle_help(flags.FLAGS, argv, usage(job_of(argv)), 'gptjax')


def job_of(argv):
  """Return the job that --config.job in a command line names; '' if there is none."""
  jobs = [argument.partition('=')[2] for argument in argv[1:] if argument.startswith('--config.job=')]
  return jobs[-1] if jobs and jobs[-1] in FIELDS else ''
