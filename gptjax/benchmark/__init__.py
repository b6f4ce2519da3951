"""Speed of gptjax and its alternatives, measured interleaved: `python -m gptjax.benchmark train`."""
