"""What `arithmetic-simple` comes to from its authors' own initial weights.

    python tests/speed/their_seeds.py [MODULE ...]

Their code seeds PyTorch with 0 to 99, and draws all weights twice: when the network is
made, and again before it is trained. PyTorch draws them here, too.
"""

import os
import statistics
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import torch

from keras_nalu.benchmarks import runner
from keras_nalu.benchmarks.experiment import Experiment


def draw(layers):
    """Of one seed, in the order of their code; there a kernel is (units, inputs)."""
    for layer in layers:
        for weight in layer.trainable_weights:
            inputs, units = weight.shape
            center, r = 0.0, (6 / (inputs + units)) ** 0.5  # Glorot's, of a gate.
            if weight.name != "G":
                uniform = layer.kernel_initializer or layer.initializer()
                center, r = uniform.center, uniform.radius(inputs, units)
            yield torch.empty(units, inputs).uniform_(center - r, center + r).T.numpy()


class Theirs(Experiment):
    def population(self):
        population = super().population()
        seeds = []
        for seed in self.run_seeds:
            torch.manual_seed(seed)
            for _ in range(2):
                kernels = [*draw(population.template.layers)]
            seeds.append(kernels)
        variables = population.trainable_variables
        for variable, kernels in zip(variables, zip(*seeds, strict=True), strict=True):
            variable.assign(np.stack(kernels))
        return population


def main(modules):
    for experiment in runner.select("arithmetic-simple", modules):
        rows = Theirs(**experiment.__dict__).run()
        steps = [row["solved_at"] for row in rows if row["solved"]]
        median, mean = statistics.median(steps), statistics.mean(steps)
        print(
            f"{experiment.module}: {len(steps)} of {len(rows)} from step {median:,.0f} "
            f"(median) or {mean:,.0f} (mean) on",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
