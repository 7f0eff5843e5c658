"""Neural arithmetic layers for Keras 3.

Public names are listed in `__init__.pyi` and load on first use (PEP 562). Importing
the package loads no framework, so that a program can still choose the backend, and
the command line answers at once.
"""

import lazy_loader

__version__ = "2.0.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

#: `from keras_nalu import *` leaves these out: the modules would hide those that Keras
#: has under the same names, and the regressor needs an extra.
_BY_NAME = {"constraints", "initializers", "regularizers", "ArithmeticRegressor"}
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    name for name in __all__ if name not in _BY_NAME
]
