import sys

from keras_nalu.models.backends.base import Backend


class Torch(Backend):
    def refuse_to_fit(self, model):
        # Whoever has processes has imported it.
        torch = sys.modules.get("torch.distributed")
        if not torch or not torch.is_available() or not torch.is_initialized():
            return
        if torch.get_world_size() > 1:
            raise ValueError(
                "Keras' `fit` does not put the gradients of PyTorch's processes "
                "together: each would train by itself. Received: a process group of "
                f"{torch.get_world_size()}. Try KERAS_BACKEND=jax with "
                "`keras.distribution`, or a loop of your own around "
                "DistributedDataParallel. Where each is to train by itself: "
                "`torch.distributed.destroy_process_group()`."
            )
