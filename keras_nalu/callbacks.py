import keras
import numpy as np


class EpochLine(keras.callbacks.Callback):
    """Prints the notebook's line after every epoch.

        epoch 0, loss: 2732.2294921875, accuracy: 0.0062

    `loss` is the last batch's where the model is compiled with the `LastBatchLoss`
    metric, else the epoch's mean, which is what Keras logs.

    Args:
        write: What takes the line.
    """

    def __init__(self, write=print):
        super().__init__()
        self.write = write

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        loss = logs.get("last_batch_loss", logs.get("loss"))
        # The shortest decimal that names this float32, as Python prints it.
        accuracy = float(str(np.float32(logs.get("accuracy", np.nan))))
        self.write(f"epoch {epoch}, loss: {loss}, accuracy: {accuracy}")
