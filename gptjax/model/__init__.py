"""The network and nothing else; no disk, clock, process or signal.

  attention   Causal self-attention. Letters: b batch, t queries, s keys, h heads, k head size.
  compute     The forms that a model's weights compute in. Each function returns a new model and leaves the
              old one.
  gpt         GPT-1 and GPT-2: one decoder-only Transformer with two settings of its norm and init.
  keys        Branches of random keys.
  layers      Layers: layer norm, projection, embedding lookup, dropout. Letters as in `gptjax.model.gpt`.
  lstm        GPT-1's recurrent rival (section 5): one LSTM layer in the place of the Transformer, all else
              the same.
  parameters  Declarations: all that is true of a weight is stated once, where it is created; the rest is
              derived.
  size        How large a model is and how much it computes, from the declarations of its weights.
"""
