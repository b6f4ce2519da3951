"""Speed beside what people would use instead, interleaved in one run: `python -m gptjax.benchmark`."""
