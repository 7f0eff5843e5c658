"""The forward pass of a model as a graph for TensorBoard."""

import itertools
import os

import keras

from keras_nalu.layers.base import walk_layers


def unused(name, names):
    """`name`, with a number appended if it is among `names`."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(n for n in itertools.chain([name], numbered) if n not in names)


def graph_def(model):
    """The forward pass of a built model as a GraphDef, with a box for each layer."""
    import tensorflow as tf

    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise RuntimeError(
            f"the {backend} backend keeps no name scopes. TensorFlow and JAX do: train "
            "an epoch with KERAS_BACKEND=tensorflow to see the graph."
        )
    trace = _tensorflow_nodes if backend == "tensorflow" else _jax_nodes
    inputs = symbolic_inputs(model)
    nodes = trace(model, inputs)
    names = _names(nodes, model.variables, keras.tree.flatten(inputs))
    graph = tf.compat.v1.GraphDef()
    for index, name in names.items():
        _, op, sources, shapes = nodes[index]
        sources = [f"{names[source]}:{port}" for source, port in sources]
        node = graph.node.add(name=name, op=op, input=sources)
        # Without shapes TensorBoard shows every edge as a thick grey arrow.
        node.attr["_output_shapes"].list.shape.extend(shapes)
    return graph


def symbolic_inputs(model):
    """Symbolic `(args, kwargs)` of a call of the model."""
    if getattr(model, "inputs", None):
        lone = isinstance(model, keras.Sequential)
        return (model.inputs[0] if lone else model.input,), {}
    shapes = model.get_build_config() or {}
    args = [shapes[key] for key in ("input_shape",) if key in shapes]
    named = shapes.get("shapes_dict", {}).items()
    kwargs = {name.removesuffix("_shape"): shape for name, shape in named}
    if not (args or kwargs):
        raise ValueError(
            f"The model {model.name!r} does not know the shapes of its inputs. Begin "
            "it with `keras.Input((features,))`, or call it once."
        )
    return keras.tree.map_shape_structure(keras.KerasTensor, (args, kwargs))


def _tracing(model, inputs, spec, batch):
    """The model as a function of its weights and inputs, and the `spec`s of both."""

    def forward(values, tensors):
        args, kwargs = keras.tree.pack_sequence_as(inputs, tensors)
        with keras.StatelessScope(list(zip(model.variables, values, strict=True))):
            return model(*args, **kwargs, training=False)

    values = [spec(variable.shape, variable.dtype) for variable in model.variables]
    tensors = keras.tree.flatten(inputs)
    return forward, values, [spec((batch, *t.shape[1:]), t.dtype) for t in tensors]


# Both tracers return nodes `(name with scopes, operation, sources, output shapes)`:
# first the variables, then the inputs and the rest. A source is `(node, output)`.


def _tensorflow_nodes(model, inputs):
    import tensorflow as tf

    forward, *specs = _tracing(model, inputs, tf.TensorSpec, None)
    forward = tf.function(forward, autograph=False).get_concrete_function(*specs)
    operations = [op for op in forward.graph.get_operations() if op.outputs]
    index = {op.name: i for i, op in enumerate(operations)}
    known = {layer.name for layer in walk_layers(model)}
    scopes = {os.path.dirname(op.name) for op in operations}

    def plain(scope):
        """The scope without the number that TensorFlow appends on a second entry."""
        outer, slash, name = scope.rpartition("/")
        stem, _, number = name.rpartition("_")
        if number.isdigit() and (stem in known or outer + slash + stem in scopes):
            name = stem
        return plain(outer) + slash + name if outer else name

    nodes = []
    for op in operations:
        scope, slash, name = op.name.rpartition("/")
        name = plain(scope) + slash + name if scope else "output"
        sources = [(index[t.op.name], t.value_index) for t in op.inputs]
        nodes.append((name, op.type, sources, [t.shape.as_proto() for t in op.outputs]))
    return nodes


def _jax_nodes(model, inputs):
    import jax
    import tensorflow as tf

    nodes = []

    def add(name, op, sources, variables):
        sizes = [
            [s if isinstance(s, int) else None for s in v.aval.shape] for v in variables
        ]
        shapes = [tf.TensorShape(size).as_proto() for size in sizes]
        nodes.append((name.strip("/"), op, [s for s in sources if s], shapes))
        return [(len(nodes) - 1, port) for port in range(len(shapes))]

    def add_all(jaxpr, sources, scope):
        """Adds the equations of a jaxpr; returns the sources of its results."""
        made = dict(zip(jaxpr.invars, sources, strict=True))

        def find(variables):
            return [None if hasattr(v, "val") else made.get(v) for v in variables]

        for equation in jaxpr.eqns:
            path = f"{scope}/{equation.source_info.name_stack}"
            sources, results = find(equation.invars), equation.outvars
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            inner = getattr(inner, "jaxpr", inner)
            if inner and len(inner.invars) == len(sources):
                found = add_all(inner, sources, path)
            else:
                op = equation.primitive.name
                found = add(f"{path}/{op}", op, sources, results)
            made.update(zip(results, found, strict=True))
        return find(jaxpr.outvars)

    (batch,) = jax.export.symbolic_shape("batch")
    forward, *specs = _tracing(model, inputs, jax.ShapeDtypeStruct, batch)
    jaxpr = jax.make_jaxpr(forward)(*specs).jaxpr
    sources = [add("", "Placeholder", [], [v])[0] for v in jaxpr.invars]
    for source, result in zip(add_all(jaxpr, sources, ""), jaxpr.outvars, strict=True):
        add("output", "Identity", [source], [result])
    return nodes


def _names(nodes, variables, inputs):
    """The names of the nodes to show, by index, each in the scope of its layer."""
    reader = {s: name for name, _, sources, _ in reversed(nodes) for s, _ in sources}
    names = {index: node[0] for index, node in enumerate(nodes)}
    for index, variable in enumerate(variables):
        *owners, name = variable.path.split("/")
        scope = reader.get(index, "").split("/")[:-1]
        while scope and scope[-1] not in owners:
            scope.pop()
        names[index] = "/".join([*scope, name])
        if index not in reader:
            del names[index]
    for index, tensor in enumerate(inputs, len(variables)):
        unnamed = tensor.name.startswith("keras_tensor")
        names[index] = "input" if unnamed else tensor.name
    # A scope that holds every node would only cost the reader a click.
    scopes = [name.split("/")[:-1] for name in names.values() if "/" in name]
    levels = itertools.takewhile(lambda x: len({*x}) == 1, zip(*scopes, strict=False))
    depth = len(list(levels))
    unique = {}
    for index, name in names.items():
        unique[index] = unused(name.split("/", depth)[-1], unique.values())
    return unique
