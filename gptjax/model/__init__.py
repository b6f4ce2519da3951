"""The network and nothing else; no disk, clock, process or signal.

  attention   Causal self-attention. Letters: b batch, t queries, s keys, h heads, k head size.
  compute     Forms of a model's weights for computing; each function returns a new model.
  gpt         GPT-1, GPT-2 and what is derived from them: one decoder-only Transformer with options.
  keys        Branches of random keys.
  layers      Layers: norms, projection, embedding lookup, dropout. Letters as in `gptjax.model.gpt`.
  lstm        GPT-1's recurrent baseline (section 5): one LSTM layer in place of the Transformer, everything
              else equal.
  parameters  Declarations: every property of a weight is stated once, where the weight is created.
  rotary      Rotary position embedding (Su et al. 2021): attention scores depend on the distance of two
              positions.
  size        Parameter counts and FLOPs of a model, from the declarations of its weights.
"""
