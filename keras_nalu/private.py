"""Every private name of Keras that the package uses, and the public one it waits for.

| name                          | Keras  | what a public name would have to say        |
|-------------------------------|--------|---------------------------------------------|
| `Variable._initializer`       | 3.15.1 | what gives a weight its initial value       |
| `TensorBoard._should_trace`   | 3.15.1 | whether the callback profiles any batch     |
| `Optimizer._use_weight_decay` | 3.15.1 | whether a weight is left out of its decay   |
"""


def initializer_of(variable):
    """The initializer of a variable that was made in a `keras.StatelessScope`."""
    return variable._initializer


def profiles(tensorboard):
    """Whether a `keras.callbacks.TensorBoard` profiles batches."""
    return tensorboard._should_trace


def decays(optimizer, variable):
    """Whether `exclude_from_weight_decay` has not excluded this variable."""
    return optimizer._use_weight_decay(variable)
