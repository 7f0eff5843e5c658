"""From arrays to formulas. NumPy and SciPy do the search; only
`ArithmeticRegressor.to_keras` imports Keras."""

try:
    from keras_nalu.discovery.estimator import (
        ArithmeticRegressor as ArithmeticRegressor,
    )
except ModuleNotFoundError as error:
    if error.name not in {"pandas", "scipy", "sklearn", "sympy", "threadpoolctl"}:
        raise
    raise ModuleNotFoundError(
        f'ArithmeticRegressor needs {error.name}: pip install "keras-nalu[regressor]".',
        name=error.name,
    ) from error
