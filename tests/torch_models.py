"""Randomly initialised models of transformers, the judges of what gptjax reads and writes."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SMALL = dict(n_layer=2, n_head=4, n_embd=32, n_positions=24, vocab_size=61)
# The sizes of Llama and Qwen3, none of which is a multiple of another by chance.
SMALL_LLAMA = dict(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, hidden_size=36,
                   intermediate_size=52, max_position_embeddings=24, vocab_size=61)
SMALL_QWEN3 = SMALL_LLAMA | {'head_dim': 10}
KINDS = {'gpt2': ('GPT2Config', 'GPT2LMHeadModel', SMALL),
         'openai-gpt': ('OpenAIGPTConfig', 'OpenAIGPTLMHeadModel', SMALL),
         'llama': ('LlamaConfig', 'LlamaForCausalLM', SMALL_LLAMA),
         'qwen3': ('Qwen3Config', 'Qwen3ForCausalLM', SMALL_QWEN3)}


def twin(kind, noise=0.1, **changes):
  """A language model of transformers, of one of KINDS, whose every weight matters."""
  config, model, sizes = KINDS[kind]
  torch.manual_seed(0)
  made = getattr(transformers, model)(getattr(transformers, config)(
    **{**sizes, 'bos_token_id': None, 'eos_token_id': None, **changes}))
  with torch.no_grad():
    for weight in made.parameters():
      weight.add_(noise * torch.randn_like(weight))
  return made.eval()


def tokens_for(model, batch=3, length=None, seed=0):
  """int32[batch, length] random tokens, at full context unless told otherwise."""
  shape = batch, length or model.config.max_position_embeddings
  return np.random.default_rng(seed).integers(0, model.config.vocab_size, shape, dtype=np.int32)


def logits_of(model, tokens, lengths=None):
  """float32[b, t, v]; `lengths`: how many tokens of each row are not padding, on its right."""
  mask = None
  if lengths is not None:
    mask = torch.tensor(np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None]).long()
  with torch.no_grad():
    return model(torch.tensor(tokens).long(), attention_mask=mask).logits.numpy()


def tensors(model):
  """{name: NumPy array} of all its tensors, each once."""
  return {name: value.numpy() for name, value in model.state_dict().items()
          if name != 'lm_head.weight' or not model.config.tie_word_embeddings}


def opened(folder):
  return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
