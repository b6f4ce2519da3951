"""The formats by the name with which `gptjax.data.adopt` is called."""

from gptjax.data.foreign import datatrove, llmc, megatron, nanogpt, npy, raw

FORMATS = {'nanogpt': nanogpt.FORMAT, 'llmc': llmc.FORMAT, 'megatron': megatron.FORMAT, 'olmo': raw.OLMO,
           'datatrove': datatrove.FORMAT, 'npy': npy.FORMAT, 'raw': raw.FORMAT}
