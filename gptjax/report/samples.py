"""Samples of a model, as the paper's appendix has them: top-k 40, and none of them chosen."""

import json
from pathlib import Path

from gptjax.files import atomic, records
from gptjax.generate import generation
from gptjax.report import files


def write(workdir, prompts, num_samples, max_tokens, seed):
  """Keeps samples of a workdir's model, or of the weights that it evaluates: without a prompt, and of each.

  Raises:
    ValueError: as `generate.sample`; no workdir of a run.
  """
  config = files.read_config(Path(workdir))
  trained = (Path(workdir) / 'checkpoints').is_dir()
  source = workdir if trained else config['config']['init_from']
  save(workdir, {prompt: generation.sample(source, prompt=prompt or None, num_samples=num_samples, seed=seed,
                                         max_tokens=max_tokens, top_k=generation.PAPER_TOP_K)
                 for prompt in ('', *prompts)}, seed)


def save(workdir, texts, seed):
  """Writes samples.json of {prompt: [text]}, which the report reads."""
  rows = [{'prompt': prompt, 'text': text, 'top_k': generation.PAPER_TOP_K, 'seed': seed}
          for prompt, written in texts.items() for text in written]
  content = json.dumps(list(map(records.add_checksum, rows)), indent=1) + '\n'
  atomic.write(Path(workdir) / 'samples.json', content)
