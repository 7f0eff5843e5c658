"""Neural arithmetic layers for Keras 3.

Public names load on first use (PEP 562): importing the package alone loads no
framework, so that the backend can still be chosen and the command line answers
at once. They stand in `__init__.pyi`.
"""

import lazy_loader

__version__ = "2.0.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

#: Not part of `from keras_nalu import *`: modules whose names Keras has, too, and what
#: an extra is needed for.
_BY_NAME = {"constraints", "initializers", "regularizers", "ArithmeticRegressor"}
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    name for name in __all__ if name not in _BY_NAME
]
