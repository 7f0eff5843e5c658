"""Graphs of TensorFlow, as text."""

#: Attributes that hold names of a model or a trace, and compute nothing.
NAMES = {
    "_class",
    "_gradient_op_type",
    "_user_specified_name",
    "backward_function_name",
    "forward_function_name",
}


def text_of(concrete):
    """The text of a `tf.types.experimental.ConcreteFunction`, which is equal for two
    functions that compute the same.

    Functions and nodes have numbers instead of names, since names such as
    `dense_17/MatMul` differ from model to model.
    """
    graph = concrete.graph.as_graph_def()
    text = _Text(
        {function.signature.name: function for function in graph.library.function}
    )
    places = text.write(graph.node, {})
    ends = [_place(end.name, places) for end in (*concrete.inputs, *concrete.outputs)]
    return "\n".join(map(str, [*text.parts, ends]))


class _Text:
    def __init__(self, library):
        self.library = library
        self.numbers = {}
        self.parts = []

    def write(self, nodes, places):
        places = places | {node.name: i for i, node in enumerate(nodes)}
        for node in nodes:
            # Those that a node only waits for come last; TensorFlow sorts their names.
            inputs = [_place(name, places) for name in node.input]
            inputs.sort(key=lambda place: place if place[0] else (False,))
            self.parts.append([self._function(node.op), node.device, inputs])
            self._attributes(node.attr)
        return places

    def _attributes(self, attributes):
        for key in sorted({*attributes} - NAMES):
            value = attributes[key]
            functions = [value.func] if value.HasField("func") else value.list.func
            if functions:
                self.parts.append([key, [self._function(f.name) for f in functions]])
            else:
                self.parts.append([key, value.SerializeToString(deterministic=True)])

    def _function(self, name):
        """The number of a function, which is also written if it is new."""
        if name not in self.library:
            return name
        if name not in self.numbers:
            number = self.numbers[name] = len(self.numbers)
            function = self.library[name]
            signature = function.signature
            self.parts.append([number, [arg.type for arg in signature.input_arg]])
            self._attributes(function.attr)
            args = {arg.name: -1 - i for i, arg in enumerate(signature.input_arg)}
            places = self.write(function.node_def, args)
            ends = [function.ret[arg.name] for arg in signature.output_arg]
            waits = [function.control_ret[name] for name in signature.control_output]
            ends = [_place(end, places) for end in ends]
            waits = sorted(_place(wait, places) for wait in waits)
            self.parts.append([number, ends, waits])
        return self.numbers[name]


def _place(name, places):
    """The place of an input of a node: `^node`, `node`, or `node:output:0`."""
    node, *output = name.removeprefix("^").split(":")
    return name.startswith("^"), places[node], output
