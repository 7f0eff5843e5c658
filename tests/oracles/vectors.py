"""Values that the authors' code computed: see `tests/reference`."""

import functools
import json
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parents[1] / "reference"
#: Of which there are vectors elsewhere and no layer here: gates of the iNALU's code
#: that its paper leaves out, a product of sigmoid weights, the forms of NMRU and NRU
#: that did worse, and signs for MulMCFC.
LEFT_OUT = {
    "inalu_tf_matrixgate",
    "inalu_tf_vectorgate",
    "mnac_sigmoid",
    "nmru_plain",
    "nmru_gated",
    "nru_sepsign",
    "mulmcfc_sign_inalu",
    "mulmcfc_sign_realnpu",
}
#: Weights out of range, in the mode without a constraint, whose forward pass clips.
CLIPPED = {"nmu_3", "nru_3", "nmru_3"}
#: More than one unit in the iNALU authors' code, which confuses the signs.
SCRAMBLED = {"inalu_tf_indep_4", "inalu_tf_shared_4"}
FILES = sorted(p.stem for p in REFERENCE.glob("*.npz") if "_seed" not in p.stem)


@functools.cache
def vectors(file):
    """The arrays of a file by name, and their metadata."""
    with np.load(REFERENCE / f"{file}.npz") as z:
        data = {name: z[name] for name in z.files}
    meta = json.loads(str(data["meta"]))
    # Unlike the PyTorch ports, the authors' code lets the gradient through the clip.
    data["d_g"] = data.get("d_g_straight_through", data.get("d_g"))
    return data, meta


def files_of(modules):
    """The files of these modules."""
    return [file for file in FILES if vectors(file)[1]["module"] in modules]
