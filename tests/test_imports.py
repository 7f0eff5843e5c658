"""Who imports whom: the arrows that keep a layer's file the paper's equation."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import keras_nalu

ROOT = Path(keras_nalu.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py*")}
FILES = {file: path for file, path in FILES.items() if path.suffix in (".py", ".pyi")}
#: Public name -> the room that the stub takes it from.
PUBLIC = {
    alias.name: node.module or alias.name
    for node in ast.walk(ast.parse((ROOT / "__init__.pyi").read_text()))
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}

WEIGHTS = {"initializers", "constraints", "regularizers", "lines", "ops", "expect"}
LAYERS = {"layers"} | WEIGHTS
MEASURES = {"losses", "metrics"}
RUN = {"datasets", "discovery", "formulas", "models", "callbacks", "tensorboard"}
FILES_OF_MODELS = {"saving", "exporting", "backup"}
#: Room -> the rooms below it, that it may import.
ARROWS = {
    "__init__": RUN | MEASURES | LAYERS | FILES_OF_MODELS,
    "__main__": {"cli"},
    "cli": {"benchmarks", "datasets", "discovery", "quiet", "__init__"},
    "benchmarks": {
        *("constraints", "datasets", "initializers", "layers", "regularizers"),
        *("quiet", "__init__"),
    },
    "quiet": set(),
    "models": MEASURES | LAYERS | {"private"},
    "private": set(),
    "discovery": {"__init__"},
    "formulas": LAYERS,
    "callbacks": {"expect", "models"},
    "tensorboard": LAYERS | {"graph", "models", "pictures", "__init__"},
    "pictures": set(),
    "graph": {"layers"},
    "saving": {"models"} | LAYERS,
    "exporting": {"graph"},
    "backup": LAYERS | {"models", "private"},
    "datasets": {"expect"},
    "losses": {"ops", "expect"},
    "metrics": {"ops", "expect"},
    "layers": WEIGHTS,
    "initializers": {"ops", "expect"},
    "constraints": {"ops", "expect"},
    "regularizers": {"ops", "expect", "private"},
    "lines": {"ops"},
    "ops": {"expect", "wide"},
    "wide": set(),
    "expect": set(),
}
#: Arrows of single files.
DELIBERATE = {
    # Whoever imported a layer can load a file that names a loss and a metric.
    ("layers/__init__.py", "losses"),
    ("layers/__init__.py", "metrics"),
    ("layers/sparsity_error.py", "private"),
    # Files of version 2.0 name a metric that is there now.
    ("saving.py", "benchmarks"),
    ("benchmarks/doors.py", "ops"),
    ("benchmarks/doors.py", "models"),
}

FRAMEWORKS = {"tensorflow", "jax", "torch"}
#: Room -> what it may import, inside functions, beside Keras and NumPy.
THIRD_PARTY = {
    "__init__": {"lazy_loader"},
    "models": FRAMEWORKS | {"pandas"},
    "tensorboard": FRAMEWORKS | {"tensorboard"},
    "graph": FRAMEWORKS,
    "pictures": {"PIL"},
    "saving": FRAMEWORKS,
    "backup": {"torch"},
    # Keras has no word for the digits of a matrix product.
    "ops": {"jax"},
    "cli": {"pandas", "pyarrow", "rich"},
    "benchmarks": {
        *("distributed", "joblib", "matplotlib", "pandas", "scipy", "sklearn"),
        # The rivals of discovery, and what reads their formulas.
        *("gplearn", "pyoperon", "sympy"),
    },
    "quiet": {"tensorflow"},
    "formulas": {"sympy"},
    "discovery": {
        *("matplotlib", "pandas", "rich", "scipy", "sklearn", "sympy"),
        "threadpoolctl",
    },
}
#: Files that nobody imports but where that framework is meant.
OF_ONE_FRAMEWORK = (
    *("models/backends/jax.py", "models/backends/tensorflow.py", "quiet.py"),
)


def room(file):
    return Path(file).parts[0].partition(".")[0]


def imports(path):
    """(module, whether inside a function) of every import in the file: of a public name
    of the package, too, which `__init__.pyi` loads on first use."""
    found = []

    def visit(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = child.module
                if path.suffix == ".pyi":
                    module = f"keras_nalu.{module}" if module else "keras_nalu"
                else:
                    assert not child.level, f"{path}: relative import"
                found.extend((f"{module}.{a.name}", inside) for a in child.names)
            elif isinstance(child, ast.Attribute | ast.Name):
                word = ast.unparse(child)
                assert word not in ("importlib.import_module", "__import__"), path
                if word.startswith("keras_nalu."):
                    found.append((word, inside))
            function = isinstance(child, ast.FunctionDef | ast.Lambda)
            visit(child, inside or function)

    visit(ast.parse(path.read_text()), False)
    return found


@pytest.mark.parametrize("file", FILES)
def test_arrows_go_down(file):
    for module, inside in imports(FILES[file]):
        top, *rest = module.split(".")
        if top == "keras_nalu":
            target = rest[0] if rest and rest[0] in ARROWS else "__init__"
            allowed = ARROWS[room(file)] | {room(file)} - {"__init__"}
            assert target in allowed or (file, target) in DELIBERATE, module
        elif top not in sys.stdlib_module_names and top not in ("keras", "numpy"):
            assert top in THIRD_PARTY.get(room(file), ()), module
            # Nobody imports the estimator without its extra; the other is no framework.
            light = room(file) in ("discovery", "__init__")
            at_the_top = file in OF_ONE_FRAMEWORK or light
            assert inside or at_the_top, f"{module}: at the top"
        assert not module.startswith("keras.src"), module


def test_files_import_each_other_in_no_circle():
    """Not through functions, either, nor through the public names."""
    modules = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file
        for file in FILES
    }
    arrows = {}
    for file, path in FILES.items():
        below = arrows.setdefault(file, set())
        for module, _ in imports(path):
            name = module.removeprefix("keras_nalu.")
            name = PUBLIC.get(name.partition(".")[0], name)
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and module.startswith("keras_nalu.") and modules[name] != file:
                below.add(modules[name])
    assert "layers/nmu.py" in arrows["layers/__init__.py"]
    assert "layers/__init__.py" in arrows["benchmarks/ports.py"]
    assert "tensorboard.py" in arrows["__init__.pyi"]
    # Raises CycleError, which names the files.
    assert [*graphlib.TopologicalSorter(arrows).static_order()]


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_a_home(file):
    assert room(file) in ARROWS
    assert Path(file).name not in ("utils.py", "common.py", "helpers.py", "types.py")
    assert "keras.src" not in FILES[file].read_text()


def test_the_package_alone_loads_no_framework():
    heavy = {"keras", "numpy", "tensorboard", "scipy", "rich", *FRAMEWORKS}
    code = "import sys, keras_nalu; dir(keras_nalu); keras_nalu.__version__; "
    code += f"print({heavy} & {{*sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (out.stdout, out.stderr, out.returncode) == ("set()\n", "", 0)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves(name):
    assert getattr(keras_nalu, name) is not None
    assert name in dir(keras_nalu)
    by_name = {"constraints", "initializers", "regularizers", "ArithmeticRegressor"}
    assert (name in keras_nalu.__all__) is (name not in by_name)


def test_unknown_name():
    with pytest.raises(AttributeError, match="keras_nalu attribute N"):
        keras_nalu.N  # noqa: B018
