"""Speed of gptjax and its alternatives, measured interleaved in one run: `python -m gptjax.benchmark train`."""
