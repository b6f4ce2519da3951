"""Samples of a model, as in the paper's appendix: top-k 40, not selected."""

import json

from gptjax.generate import generation
from gptjax.report import files
from gptjax.storage.files import access, paths, records


def write(workdir, prompts, num_samples, max_tokens, seed):
  """Write unconditional samples, and samples for each prompt, of the model of a workdir.

  Raises:
    ValueError: see `generate.sample`; or the folder is not a workdir.
  """
  workdir = paths.location(workdir)
  config = files.read_config(workdir)
  trained = access.is_folder(workdir / 'checkpoints')
  source = str(workdir) if trained else config['config']['init_from']
  save(workdir, {prompt: generation.sample(source, prompt=prompt or None, num_samples=num_samples, seed=seed,
                                           max_tokens=max_tokens, top_k=generation.PAPER_TOP_K)
                 for prompt in ('', *prompts)}, seed)


def save(workdir, texts, seed):
  """Write samples.json from {prompt: [text]}, for the report."""
  rows = [{'prompt': prompt, 'text': text, 'top_k': generation.PAPER_TOP_K, 'seed': seed}
          for prompt, samples in texts.items() for text in samples]
  content = json.dumps(list(map(records.add_checksum, rows)), indent=1) + '\n'
  access.write(paths.location(workdir) / 'samples.json', content)
