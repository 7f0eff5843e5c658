import sys

from keras_nalu.models.backends.base import Backend


class Torch(Backend):
    def refuse_to_fit(self, model):
        # A program with several processes has imported it; others need not load it.
        torch = sys.modules.get("torch.distributed")
        if not torch or not torch.is_available() or not torch.is_initialized():
            return
        if torch.get_world_size() > 1:
            raise ValueError(
                "Keras' `fit` does not add up the gradients of PyTorch's processes: "
                "each would train by itself. Received: a process group of "
                f"{torch.get_world_size()}. Try KERAS_BACKEND=jax with "
                "`keras.distribution`, or your own loop around "
                "DistributedDataParallel. To let each train by itself, call "
                "`torch.distributed.destroy_process_group()`."
            )
