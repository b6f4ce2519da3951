"""GPT-1 and GPT-2 in JAX: pretraining, fine-tuning and zero-shot evaluation."""

__version__ = '0.1.0'
