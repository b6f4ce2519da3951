"""The architectures of transformers that gptjax reads and writes, each as one declaration.

A declaration says which fields of `config.model` are which fields of config.json, and which weights are which
tensors. Reading (`hf_config`, `huggingface`), writing (`export`) and what both refuse are derived from it.
`docs/howto/architectures.md` shows how to add one.
"""

import re
from typing import Any, NamedTuple

NUMBER = float, int
OPTIONAL_INTEGER = int, type(None)
LAYER = re.compile(r'h(\d+)/(.+)')


class Option(NamedTuple):
  """A field of config.json that may be missing.

  name: in config.json.
  default: value of transformers if the field is missing; None: the sizes determine it.
  types: type or tuple of types of the value. A null is 0 in `config.model`: the sizes determine the value.
  copies: names of fields that are written with the same value, and are not read.
  """
  name: str
  default: Any
  types: Any
  copies: tuple = ()


class Architecture(NamedTuple):
  """One architecture of transformers.

  title: its name in messages.
  model_type, class_name: the values of `model_type` and `architectures` in config.json.
  sizes: {field of config.model: name in config.json} of positive integers, which must not be missing.
  options: {field of config.model: Option}.
  activation: name in config.json of the activation function.
  activations: {its value in config.json: value of `activation_function`}; the first is the default.
  constants: {field of config.model: value} of all models of the architecture. A field that is nowhere in the
    declaration has its default in `config.model`.
  supported: {name in config.json: supported values} of options that gptjax does not have; of a list, those of
    its entries. The field may also be missing or null.
  whole_heads: whether n_head must divide n_embd even if the size of the heads is given.
  prefix: of the names of all tensors except that of the output matrix.
  tensors: {weight: name} without the prefix, with {} for the number of the layer; or a tuple of names: the
    outputs of these tensors, side by side in this order, are those of the weight.
  transposed: whether matrices are [outputs, inputs] in the files, as those of torch.nn.Linear.
  """
  title: str
  model_type: str
  class_name: str
  sizes: dict
  options: dict
  activation: str
  activations: dict
  constants: dict
  supported: dict
  whole_heads: bool
  prefix: str
  tensors: dict
  transposed: bool

  def names(self, weight):
    """Return the names of the tensors of a weight, without the prefix.

    Args:
      weight: OpenAI's name, such as `wte` or `h0/ln_1/g`.
    """
    layer, in_layer = LAYER.fullmatch(weight).groups() if LAYER.fullmatch(weight) else ('', '')
    names = self.tensors[f'h/{in_layer}' if in_layer else weight]
    return tuple(name.format(layer) for name in ((names,) if isinstance(names, str) else names))

  def full_names(self, weight):
    """Return the names of the tensors of a weight in the files of a language model."""
    return self.names(weight) if weight == 'lm_head' else tuple(map(self.prefix.__add__, self.names(weight)))


_GPT2_LAYER = {f'h/{name}/{weight}': f'h.{{}}.{name.replace("/", ".")}.{tensor}'
               for name, weights in {'ln_1': 'gb', 'ln_2': 'gb', 'attn/c_attn': 'wb', 'attn/c_proj': 'wb',
                                     'mlp/c_fc': 'wb', 'mlp/c_proj': 'wb'}.items()
               for weight, tensor in zip(weights, ('weight', 'bias'))}

GPT2 = Architecture(
  title='GPT-2', model_type='gpt2', class_name='GPT2LMHeadModel',
  sizes=dict(n_layer='n_layer', n_head='n_head', n_embd='n_embd', n_ctx='n_positions', n_vocab='vocab_size'),
  options={'n_inner': Option('n_inner', None, OPTIONAL_INTEGER),
           'layer_norm_epsilon': Option('layer_norm_epsilon', 1e-5, NUMBER),
           'dropout': Option('resid_pdrop', 0.1, NUMBER, ('embd_pdrop', 'attn_pdrop')),
           'tie_word_embeddings': Option('tie_word_embeddings', True, bool),
           'scale_attn_weights': Option('scale_attn_weights', True, bool),
           'scale_attn_by_inverse_layer_idx': Option('scale_attn_by_inverse_layer_idx', False, bool)},
  activation='activation_function',
  activations={'gelu_new': 'gelu_new', 'gelu_pytorch_tanh': 'gelu_new', 'gelu': 'gelu', 'relu': 'relu',
               'silu': 'silu', 'swish': 'silu'},
  # reorder_and_upcast_attn sets the precision of the scores, which is always float32 here.
  constants={'norm': 'before'}, supported={}, whole_heads=True, prefix='transformer.', transposed=False,
  tensors={'wte': 'wte.weight', 'wpe': 'wpe.weight', 'ln_f/g': 'ln_f.weight', 'ln_f/b': 'ln_f.bias',
           'lm_head': 'lm_head.weight', **_GPT2_LAYER})

OPENAI_GPT = GPT2._replace(
  title='OpenAI-GPT', model_type='openai-gpt', class_name='OpenAIGPTLMHeadModel',
  options={name: GPT2.options[name] for name in ('layer_norm_epsilon', 'dropout', 'tie_word_embeddings')},
  activation='afn',
  activations={'gelu': 'gelu_new', 'relu': 'relu', 'silu': 'silu', 'swish': 'silu'},  # its gelu is tanh
  constants={'norm': 'after'},
  tensors={'wte': 'tokens_embed.weight', 'wpe': 'positions_embed.weight', 'lm_head': 'lm_head.weight',
           **_GPT2_LAYER})

LLAMA = Architecture(
  title='Llama', model_type='llama', class_name='LlamaForCausalLM',
  sizes=dict(n_layer='num_hidden_layers', n_head='num_attention_heads', n_embd='hidden_size',
             n_inner='intermediate_size', n_ctx='max_position_embeddings', n_vocab='vocab_size'),
  options={'n_kv_head': Option('num_key_value_heads', 0, OPTIONAL_INTEGER),
           'head_size': Option('head_dim', 0, OPTIONAL_INTEGER),
           'layer_norm_epsilon': Option('rms_norm_eps', 1e-6, NUMBER),
           'dropout': Option('attention_dropout', 0.0, NUMBER),
           'tie_word_embeddings': Option('tie_word_embeddings', False, bool)},
  # transformers has others, but vLLM and llama.cpp compute silu.
  activation='hidden_act', activations={'silu': 'silu', 'swish': 'silu'},
  constants={'norm': 'before', 'norm_type': 'rms', 'positions': 'rotary', 'bias': False, 'mlp': 'gated'},
  supported={'attention_bias': (False,), 'mlp_bias': (False,), 'pretraining_tp': (1,)},
  whole_heads=True, prefix='model.', transposed=True,
  tensors={'wte': 'embed_tokens.weight', 'ln_f/g': 'norm.weight', 'lm_head': 'lm_head.weight',
           'h/ln_1/g': 'layers.{}.input_layernorm.weight',
           'h/ln_2/g': 'layers.{}.post_attention_layernorm.weight',
           'h/attn/c_attn/w': tuple(f'layers.{{}}.self_attn.{x}_proj.weight' for x in 'qkv'),
           'h/attn/c_q/w': 'layers.{}.self_attn.q_proj.weight',
           'h/attn/c_kv/w': tuple(f'layers.{{}}.self_attn.{x}_proj.weight' for x in 'kv'),
           'h/attn/c_proj/w': 'layers.{}.self_attn.o_proj.weight',
           'h/mlp/c_gate/w': 'layers.{}.mlp.gate_proj.weight',
           'h/mlp/c_fc/w': 'layers.{}.mlp.up_proj.weight',
           'h/mlp/c_proj/w': 'layers.{}.mlp.down_proj.weight'})

QWEN3 = LLAMA._replace(
  title='Qwen3', model_type='qwen3', class_name='Qwen3ForCausalLM', whole_heads=False,
  sizes=LLAMA.sizes | {'head_size': 'head_dim'},
  options={name: option for name, option in LLAMA.options.items() if name != 'head_size'},
  constants=LLAMA.constants | {'qk_norm': True},
  supported={'attention_bias': (False,), 'use_sliding_window': (False,), 'layer_types': ('full_attention',)},
  tensors=LLAMA.tensors | {'h/attn/q_norm/g': 'layers.{}.self_attn.q_norm.weight',
                           'h/attn/k_norm/g': 'layers.{}.self_attn.k_norm.weight'})

# In this order a model that several of them have is written as the first.
ARCHITECTURES = (GPT2, OPENAI_GPT, LLAMA, QWEN3)
