"""From a program and its parameters to what runs: constants computed once, products joined, a user read once.

A program (`ctnet_ray.serving.program`) says for each row what the model says. Here its graph is rewritten,
with the same result but for rounding:

- What depends on parameters alone is computed when a model is loaded.
- Linear maps that read the same state are one product: of a source layer h, the source's next layer and an
  adapter's W and V are [W_next; W; V] h.
- A request has one user and C candidates. What depends on the user alone is computed for one row. Of a linear
  map of both, W [u, c] = W_u u + W_c c, only the second product has C rows. Attention over a user's sequence
  k_1 .. k_L reads the candidate q by W (q * k_l) = (W diag(k_l)) q: one product whose matrix is the user's.

Shapes: B rows, C candidates, L items of a sequence, D width of one, H width of a map's output.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from ctnet_ray.serving.program import Program

_ATEN = torch.ops.aten
#: What takes one row beside many, as it is.
_BROADCAST = {
    *(_ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.addcmul.default),
    *(_ATEN.masked_fill.Scalar, _ATEN.where.self, _ATEN.prelu.default),
}
Run = Callable[..., torch.Tensor]


def compiled(program: Program, parameters: Mapping[str, torch.Tensor], of_user: Collection[int] = ()) -> Run:
    """Return what computes a program: inputs, in the order of its signature -> probabilities, float32 [B].

    Args:
        program: The program.
        parameters: Its parameters by name.
        of_user: Places of the inputs that are a user's, with one row; all others have C, a candidate each.
    """
    graph = Graph()
    copied: dict[Node, Node] = {}
    (output,) = cast(tuple[Node], graph.graph_copy(program.graph, copied))
    graph.output(output)
    places = [copied[node] for node in program.graph.nodes if node.op == "placeholder"]
    constants = {place: program.constants[place.name] for place in places if place.name in program.constants}
    takes = [place for place in places if place not in constants]
    names = program.signature.parameters
    constants |= dict(zip(takes, (parameters[name] for name in names), strict=False))
    inputs = takes[len(names) :]
    values = _Constants(graph, constants)
    _join_products(graph, values)
    if of_user:
        _Sides(graph, values, inputs, of_user).rewrite()
    return values.module()


class _Constants:
    """The nodes of a graph whose value is known."""

    def __init__(self, graph: Graph, known: Mapping[Node, torch.Tensor]) -> None:
        self.graph, self._values = graph, dict[Node, Any](known)
        for node in graph.nodes:
            if node.op == "call_function" and all(read in self._values for read in node.all_input_nodes):
                arguments, options = map_arg((node.args, node.kwargs), self._values.__getitem__)
                self._values[node] = node.target(*arguments, **options)

    def __contains__(self, node: object) -> bool:
        return node in self._values

    def __getitem__(self, node: Node) -> torch.Tensor:
        return self._values[node]

    def add(self, value: torch.Tensor) -> Node:
        """Return a node for a tensor, ahead of all others."""
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            node = self.graph.get_attr(f"constant_{len(self._values)}")
        self._values[node] = value.contiguous()
        return node

    def module(self) -> GraphModule:
        """Return the graph with what is known as its attributes, and without what nobody reads."""
        for node in list(self._values):
            readers = [reader for reader in node.users if reader not in self._values]
            if readers and node.op != "get_attr":
                place = self.add(self._values[node])
                for reader in readers:
                    reader.replace_input_with(node, place)
        self.graph.eliminate_dead_code()
        root = nn.Module()
        for node in list(self.graph.nodes):
            if node.op == "placeholder" and node in self._values:
                self.graph.erase_node(node)
            if node.op == "get_attr":
                root.register_buffer(node.target, self._values[node], persistent=False)
        return GraphModule(root, self.graph)


def _is_linear(node: Node, values: _Constants) -> bool:
    """Whether a node is a linear map whose parameters are known, of a state that isn't."""
    return node.target is _ATEN.linear.default and node not in values and node.args[1] in values


def _is_side_by_side(node: Node) -> bool:
    """Whether a node puts states side by side, in their last dimension."""
    dim = node.args[1] if len(node.args) > 1 else 0
    return node.target is _ATEN.cat.default and dim in (-1, len(node.meta["val"].shape) - 1)


def _parameters(linear: Node, values: _Constants) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight, bias = linear.args[1], linear.args[2] if len(linear.args) > 2 else None
    return values[_node(weight)], None if bias is None else values[_node(bias)]


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)  # noqa: S101  (for the type checker)
    return argument


def _join_products(graph: Graph, values: _Constants) -> None:
    """Make one product of all linear maps that read the same state."""
    by_state: dict[Node, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if _is_linear(node, values):
            by_state[_node(node.args[0])].append(node)
    for state, linears in by_state.items():
        if len(linears) > 1:
            _join(graph, values, state, linears)


def _join(graph: Graph, values: _Constants, state: Node, linears: Sequence[Node]) -> None:
    weights, biases = zip(*(_parameters(linear, values) for linear in linears), strict=True)
    sizes = [len(weight) for weight in weights]
    biases = [
        weight.new_zeros(size) if bias is None else bias
        for weight, bias, size in zip(weights, biases, sizes, strict=True)
    ]
    arguments = (state, values.add(torch.cat(weights)), values.add(torch.cat(biases)))
    with graph.inserting_before(linears[0]):
        joined = graph.call_function(_ATEN.linear.default, arguments)
        joined.meta = linears[0].meta
        parts = graph.call_function(_ATEN.split_with_sizes.default, (joined, sizes, -1))
        for index, linear in enumerate(linears):
            part = graph.call_function(operator.getitem, (parts, index))
            part.meta = linear.meta
            linear.replace_all_uses_with(part)
    for linear in linears:
        graph.erase_node(linear)


class _Sides:
    """Rewrites a graph for inputs of which some have one row, the user's, and the others C."""

    def __init__(
        self, graph: Graph, values: _Constants, inputs: Sequence[Node], of_user: Collection[int]
    ) -> None:
        self.graph, self.values = graph, values
        self._users = {inputs[index] for index in of_user}
        self._candidates = set(inputs) - self._users
        self._rows = str(inputs[0].meta["val"].shape[0])
        with graph.inserting_after(inputs[-1]):
            some = next(place for place in inputs if place in self._candidates)
            self._count = graph.call_function(_ATEN.sym_size.int, (some, 0))

    def rewrite(self) -> None:
        """Rewrite all nodes, in their order."""
        for node in list(self.graph.nodes):
            if node.op != "call_function" or node in self.values or node is self._count:
                continue
            if node.target is _ATEN.sym_size.int and str(node.meta["val"]) == self._rows:
                node.replace_all_uses_with(self._count)
                continue
            read = set(node.all_input_nodes)
            if not read & {*self._candidates, self._count}:
                self._users.add(node)
                continue
            self._candidates.add(node)
            with self.graph.inserting_before(node):
                self._rewrite(node, bool(read & self._users))

    def _rewrite(self, node: Node, is_mixed: bool) -> None:
        """Rewrite a node that has a row for each candidate; a mixed one reads the user's row too."""
        if _is_linear(node, self.values):
            self._split(node)
        elif is_mixed and not (
            node.target in _BROADCAST or self._is_pooling(node) or self._is_split_later(node)
        ):
            self._repeat(node)

    def _is_split_later(self, node: Node) -> bool:
        """Whether a node puts states side by side for linear maps alone: these take them apart (`_split`)."""
        return node.target is _ATEN.cat.default and all(
            _is_linear(reader, self.values) for reader in node.users
        )

    def _is_pooling(self, node: Node) -> bool:
        """Make the weighted sum of a user's sequence a product of matrices."""
        if node.target is not _ATEN.einsum.default or node.args[0] != "bl,bld->bd":
            return False
        weight_CL, sequence_1LD = node.args[1]  # type: ignore[misc]
        if sequence_1LD not in self._users or weight_CL in self._users:
            return False
        sequence_LD = self._of_user(_ATEN.squeeze.dim, sequence_1LD, 0)
        self._replace(node, _ATEN.matmul.default, weight_CL, sequence_LD)
        return True

    def _split(self, linear: Node) -> None:
        """Make W [u, c] + b the sum of W_u u + b, one row, and W_c c."""
        state = _node(linear.args[0])
        weight_HE, bias_H = _parameters(linear, self.values)
        parts = cast(Sequence[Node], state.args[0]) if _is_side_by_side(state) else [state]
        columns = weight_HE.split([part.meta["val"].shape[-1] for part in parts], dim=1)
        of_user = [index for index, part in enumerate(parts) if part in self._users]
        of_candidate = [index for index, part in enumerate(parts) if part not in self._users]
        offset: Node | None = None if bias_H is None else self.values.add(bias_H)
        if of_user:
            user = self._side_by_side([parts[index] for index in of_user])
            weight_HU = self.values.add(torch.cat([columns[index] for index in of_user], dim=1))
            offset = self._of_user(_ATEN.linear.default, user, weight_HU, offset)
        rest = self._side_by_side([parts[index] for index in of_candidate])
        weight_HC = torch.cat([columns[index] for index in of_candidate], dim=1)
        candidate_CD, sequence_1LD = self._attended(rest)
        if sequence_1LD is not None:
            self._attend(linear, candidate_CD, sequence_1LD, weight_HC, offset)
        elif of_user and len(linear.meta["val"].shape) == 2:
            offset_H = self._of_user(_ATEN.squeeze.dim, offset, 0)
            self._replace(linear, _ATEN.linear.default, rest, self.values.add(weight_HC), offset_H)
        elif of_user:
            product = self.graph.call_function(_ATEN.linear.default, (rest, self.values.add(weight_HC)))
            self._replace(linear, _ATEN.add.Tensor, product, offset)

    def _attended(self, state: Node) -> tuple[Node, Node | None]:
        """Return q and k where a state is q * k_l: a candidate's vector and the user's sequence."""
        if state.target is _ATEN.mul.Tensor:
            for query, sequence in (state.args, state.args[::-1]):
                query, sequence = _node(query), _node(sequence)
                if query.target is _ATEN.unsqueeze.default and query.args[1] == 1 and sequence in self._users:
                    return _node(query.args[0]), sequence
        return state, None

    def _attend(
        self, linear: Node, query_CD: Node, sequence_1LD: Node, weight_HD: torch.Tensor, offset: Node | None
    ) -> None:
        """Make W (q * k_l) + o, [C, L, H], one product of q: of W diag(k_l) below each other, [L H, D]."""
        items_LD = self._of_user(_ATEN.squeeze.dim, sequence_1LD, 0)
        items_L1D = self._of_user(_ATEN.unsqueeze.default, items_LD, 1)
        weight_LHD = self._of_user(_ATEN.mul.Tensor, items_L1D, self.values.add(weight_HD))
        weight = self._of_user(_ATEN.flatten.using_ints, weight_LHD, 0, 1)
        product = self.graph.call_function(_ATEN.linear.default, (query_CD, weight))
        sizes = [-1, len(weight_HD)]
        if offset is None:
            self._replace(linear, _ATEN.unflatten.int, product, 1, sizes)
            return
        product_CLH = self.graph.call_function(_ATEN.unflatten.int, (product, 1, sizes))
        self._replace(linear, _ATEN.add.Tensor, product_CLH, offset)

    def _repeat(self, node: Node) -> None:
        """Give a node the user's row C times, as a view."""
        for read in [read for read in node.all_input_nodes if read in self._users]:
            shape = [self._count if str(size) == self._rows else -1 for size in read.meta["val"].shape]
            repeated = self.graph.call_function(_ATEN.expand.default, (read, shape))
            repeated.meta = read.meta
            node.replace_input_with(read, repeated)

    def _side_by_side(self, parts: Sequence[Node]) -> Node:
        if len(parts) == 1:
            return parts[0]
        return self.graph.call_function(_ATEN.cat.default, (list(parts), -1))

    def _of_user(self, target: Any, *arguments: Any) -> Node:
        made = self.graph.call_function(target, arguments)
        self._users.add(made)
        return made

    def _replace(self, node: Node, target: Any, *arguments: Any) -> None:
        made = self.graph.call_function(target, arguments)
        made.meta = node.meta
        self._candidates.add(made)
        node.replace_all_uses_with(made)
