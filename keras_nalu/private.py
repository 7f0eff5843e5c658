"""Every private name of Keras that the package uses, and why there is no public one.

| name                            | Keras  | what a public name would have to give     |
|---------------------------------|--------|-------------------------------------------|
| `Model._initial_epoch`          | 3.15.1 | at which epoch a running `fit` goes on    |
| `TensorBoard._global_*_batch`   | 3.15.1 | how many batches the callback has counted |
| `TensorBoard._writers`          | 3.15.1 | that what it has written is to be flushed |
| `Variable._initializer`         | 3.15.1 | what gives a weight its initial value     |
| `TensorBoard._should_trace`     | 3.15.1 | whether the callback profiles any batch   |
| `Optimizer._use_weight_decay`   | 3.15.1 | whether a weight is left out of its decay |
| `StatelessScope.original_scope` | 3.15.1 | whether such a scope is open              |
"""

import keras


def begin_at(model, epoch):
    """Makes the `fit` that has just begun start at this epoch; `None` undoes that."""
    model._initial_epoch = epoch


def flush(tensorboard):
    """Flushes the writers of a `keras.callbacks.TensorBoard`."""
    for writer in tensorboard._writers.values():
        writer.flush()


def batch_counts(tensorboard):
    """The number of training batches and of test batches that it has counted."""
    return tensorboard._global_train_batch, tensorboard._global_test_batch


def set_batch_counts(tensorboard, counts):
    tensorboard._global_train_batch, tensorboard._global_test_batch = counts


def initializer_of(variable):
    """The initializer of a variable that was made in a `keras.StatelessScope`."""
    return variable._initializer


def profiles(tensorboard):
    """Whether a `keras.callbacks.TensorBoard` profiles batches."""
    return tensorboard._should_trace


def decays(optimizer, variable):
    """Whether the optimizer decays this variable."""
    return optimizer._use_weight_decay(variable)


def in_stateless_scope():
    """Whether a `keras.StatelessScope` takes all assignments, as in a step on JAX."""
    with keras.StatelessScope(initialize_variables=False) as scope:
        return scope.original_scope is not None
