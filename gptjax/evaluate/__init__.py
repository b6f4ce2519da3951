"""Zero-shot evaluation: the GPT-2 paper's suite, as a job and during pretraining."""
