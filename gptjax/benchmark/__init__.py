"""Speed beside what people would use instead, by turns in one run: `python -m gptjax.benchmark`."""
