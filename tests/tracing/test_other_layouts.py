"""Sparse and nested tensors keep their layout in a trace, and where they come from."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv

from ghn_pyg import coverage, from_module, verify
from tests.tracing.helpers import assert_unchanged, network, snapshot, sources, weight

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning"),
]
H = torch.rand(5, 3)
COO = torch.eye(5).to_sparse_coo()
SPARSE = {"coo": torch.Tensor.to_sparse_coo, "csr": torch.Tensor.to_sparse_csr, "csc": torch.Tensor.to_sparse_csc}
EACH = pytest.mark.parametrize("layout", SPARSE.values(), ids=SPARSE)


def predecessors(forward, inputs, **members):
    """The predecessors of the last layer."""
    return sources(from_module(network(forward, o=nn.Linear(3, 2), **members), inputs))["o.weight"]


@EACH
def test_sparse_matrices_as_factors(layout):
    adj = layout(torch.eye(5))
    for product in (lambda a, h: a @ h, torch.mm, torch.matmul, torch.sparse.mm, torch.spmm):
        before = predecessors(lambda self, h, a, f=product: self.o(f(a, self.a(h))), (H, adj), a=nn.Linear(3, 3))
        assert before == ["a.bias", "input"] or before == ["input", "a.bias"]


@EACH
def test_sparse_features_times_a_matrix_are_a_layer(layout):
    graph = from_module(network(lambda self, x: x @ self.w, w=weight(5, 3)), layout(torch.rand(7, 5)))
    assert graph.node_names == ["input", "w"]
    graph = from_module(nn.Linear(5, 3), layout(torch.rand(7, 5)))
    assert graph.node_names == ["input", "weight", "bias"]


@EACH
def test_layout_and_structure_are_kept(layout):
    adj = layout(torch.eye(5))

    def forward(self, h, a):
        assert a.layout is adj.layout
        assert a.is_sparse is adj.is_sparse
        assert a._nnz() == 5
        assert a.device == h.device
        dense, again = a.to_dense(), a.to_dense().to_sparse_coo()
        assert dense.layout is torch.strided
        assert again.coalesce().layout is torch.sparse_coo
        return self.o(dense @ h + again @ h)

    assert predecessors(forward, (H, adj)) == ["input"]


def test_indices_have_values_and_values_do_not():
    def forward(self, h, a):
        a = a.coalesce()
        rows, columns = a.indices()
        assert rows.tolist() == columns.tolist() == [0, 1, 2, 3, 4]
        messages = a.values()[:, None] * self.a(h)[rows]
        assert messages.is_floating_point()
        return self.o(torch.zeros(5, 3).index_add(0, columns, messages))

    assert sorted(predecessors(forward, (H, COO), a=nn.Linear(3, 3))) == ["a.bias", "input"]
    compressed = lambda self, h, a: self.o(self.a(h)[a.col_indices()[: int(a.crow_indices()[-1])]])  # noqa: E731
    assert predecessors(compressed, (H, COO.to_sparse_csr()), a=nn.Linear(3, 3)) == ["a.bias"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_sparse_integers_are_as_edges(dtype):
    adj = COO.to(dtype)
    assert predecessors(
        lambda self, h, a: self.o(torch.sparse.mm(a.float(), self.a(h))), (H, adj), a=nn.Linear(3, 3)
    ) == ["a.bias"]
    graph = from_module(network(lambda self, a: a.float() @ self.w, w=weight(5, 3)), adj)
    assert sources(graph)["w"] == ["input"]


CHANGES = {
    "scaled": lambda a: a * 2, "transposed": lambda a: a.t(), "of another type": lambda a: a.double().float(),
    "copied": lambda a: a.clone().detach(), "normalised": lambda a: torch.sparse.softmax(a, 1),
    "added": lambda a: a + a * a, "selected": lambda a: a.index_select(0, torch.arange(5)),
    "made anew": lambda a: torch.sparse_coo_tensor(a.coalesce().indices(), a.coalesce().values() * 3, a.shape),
    "scaled by degrees": lambda a: a.to_dense() / torch.sparse.sum(a, 1).to_dense()[:, None],
    "moved": lambda a: a.to("cpu").coalesce(),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_functions_of_sparse_matrices(change):
    before = predecessors(lambda self, h, a: self.o(change(a) @ self.a(h)), (H, COO), a=nn.Linear(3, 3))
    assert sorted(before) == ["a.bias", "input"]


def test_sparse_matrices_of_edges_and_weights():
    edges, weights = torch.tensor([[0, 1], [1, 2]]), torch.rand(2, 1)

    def forward(self, h, edges, weights):
        return self.o(torch.sparse_coo_tensor(edges, self.a(weights)[:, 0], (5, 5)) @ h)

    assert "a.bias" in predecessors(forward, (H, edges, weights), a=nn.Linear(1, 1))
    assert predecessors(lambda self, h: self.o(self.a(h).to_sparse().to_dense()), H, a=nn.Linear(3, 3)) == ["a.bias"]


def compressed(name, *indices, part=(slice(2), 0), **options):
    make = getattr(torch, f"sparse_{name}_tensor")
    return lambda h: make(*map(torch.tensor, indices), h[part], (2, 2), **options)


ROWS, BLOCKS = ([0, 1, 2], [0, 1]), ([0, 1], [0])
BLOCK = (None, slice(2), slice(2))
MADE = {
    "to coo": torch.Tensor.to_sparse_coo, "to csr": torch.Tensor.to_sparse_csr, "to csc": torch.Tensor.to_sparse_csc,
    "to bsr": lambda h: h.to_sparse_bsr((1, 1)), "to bsc": lambda h: h.to_sparse_bsc((1, 1)),
    "csr": compressed("csr", *ROWS), "csc": compressed("csc", *ROWS), "bsr": compressed("bsr", *BLOCKS, part=BLOCK),
    "bsc": compressed("bsc", *BLOCKS, part=BLOCK),
    "compressed": compressed("compressed", *ROWS, layout=torch.sparse_csr),
}  # fmt: skip


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_sparse_tensors_of_activations(make):
    before = predecessors(lambda self, h: self.o(make(self.a(h)).to_dense().sum() * h), H, a=nn.Linear(3, 3))
    assert sorted(before) == ["a.bias", "input"]


def test_rows_that_activations_choose():
    def forward(self, h, a):
        rows = self.a(h).argmax(0)
        return self.o(a.index_select(0, rows) @ h)

    assert sorted(predecessors(forward, (H, COO), a=nn.Linear(3, 3))) == ["a.bias", "input"]


def test_sparse_buffers():
    def forward(self, h):
        hidden = torch.sparse.mm(self.adj, self.a(h)).add_(1)
        return self.o(torch.sparse.addmm(hidden, self.adj * 2, hidden))

    model = network(forward, a=nn.Linear(3, 3), o=nn.Linear(3, 2), adj=COO.clone())
    values = model.adj.to_dense()
    assert sources(from_module(model, H))["o.weight"] == ["a.bias"]
    assert torch.equal(model.adj.to_dense(), values)


def test_sparse_inputs_and_buffers_are_not_changed():
    def forward(self, h, a):
        a.mul_(0)
        self.adj.add_(a)
        return self.o(a @ h)

    adj = COO.clone()
    model = network(forward, o=nn.Linear(3, 2), adj=COO.clone())
    from_module(model, (H, adj))
    assert torch.equal(adj.to_dense(), torch.eye(5))
    assert torch.equal(model.adj.to_dense(), torch.eye(5))


@EACH
@pytest.mark.filterwarnings("ignore:Converting sparse tensor to CSR format:UserWarning")
def test_graph_networks_take_sparse_matrices(layout):
    data = Data(x=H, adj_t=layout(torch.eye(5)))
    model = network(lambda self, data: self.b(self.a(data.x, data.adj_t)), a=GraphConv(3, 7), b=nn.Linear(7, 2))
    assert coverage(model, data).share == 1


def test_sparse_matrices_without_data():
    assert predecessors(lambda self, h, a: self.o(a.coalesce() @ h), (H, COO.to("meta"))) == ["input"]


# --- nested tensors --------------------------------------------------------------------------------------------------


def nested(layout, width=3):
    return torch.nested.nested_tensor([torch.rand(2, width), torch.rand(5, width)], layout=layout)


NESTED = pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=["jagged", "strided"])


@NESTED
def test_layers_of_nested_tensors(layout):
    x = nested(layout)
    model = nn.Sequential(nn.Linear(3, 7), nn.GELU(), nn.LayerNorm(7), nn.Dropout(), nn.Linear(7, 2))
    before = snapshot(model)
    graph = from_module(model, x)
    assert graph.node_names == ["input", "0.weight", "0.bias", "2.weight", "4.weight", "4.bias"]
    assert graph.classifier.tolist() == [False, False, False, False, True, True]
    assert_unchanged(model, before)
    residual = network(lambda self, x: self.b(self.a(x) + x), a=nn.Linear(3, 3), b=nn.Linear(3, 2))
    assert from_module(residual, {"x": x}).node_names == ["input", "a.weight", "a.bias", "sum", "b.weight", "b.bias"]


@NESTED
def test_nested_tensors_become_dense(layout):
    x = nested(layout)
    for dense in (
        lambda y: torch.nested.to_padded_tensor(y, 0.0),
        lambda y: torch.cat([part.relu() for part in y.unbind()]),
        lambda y: torch.stack([part.sum(0) for part in y.unbind()]),
    ):
        assert predecessors(lambda self, x, f=dense: self.o(f(self.a(x))), x, a=nn.Linear(3, 3))[-1] in (
            "a.bias", "concat",
        )  # fmt: skip


def test_parts_of_jagged_tensors():
    def forward(self, x):
        assert x.is_nested
        assert x.offsets().tolist() == [0, 2, 7]
        hidden = self.a(x)
        return self.o(hidden.values() * 2) + self.o(hidden.sum(dim=1) / x.offsets().diff()[:, None])[0]

    assert predecessors(forward, nested(torch.jagged), a=nn.Linear(3, 3)) == ["a.bias"]


def test_attention_of_nested_tensors():
    def heads(tensor):
        return tensor.unflatten(-1, (2, 2)).transpose(1, 2)

    def fused(self, x):
        parts = [heads(part) for part in self.qkv(x).chunk(3, -1)]
        return self.o(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(-2))

    graph = from_module(network(fused, qkv=nn.Linear(3, 12), o=nn.Linear(4, 2)), nested(torch.jagged))
    assert sources(graph)["o.weight"] == ["msa"]

    def written_out(self, x):
        return self.o(torch.matmul(torch.matmul(self.q(x), self.k(x).transpose(1, 2)).softmax(-1), self.v(x)))

    model = network(written_out, q=nn.Linear(3, 3), k=nn.Linear(3, 3), v=nn.Linear(3, 3), o=nn.Linear(3, 2))
    assert sources(from_module(model, nested(torch.strided)))["o.weight"] == ["msa"]


def test_attention_layers_of_nested_tensors():
    """PyTorch computes them in fused operators only, which neither a trace nor a run for comparison can follow."""
    layer = nn.TransformerEncoderLayer(6, 2, 7, batch_first=True)

    def attention(self, x):
        return self.o(torch.nested.to_padded_tensor(self.a(x, x, x)[0], 0.0))

    def encoder(self, x):
        return self.o(torch.nested.to_padded_tensor(self.a(x), 0.0))

    x = torch.nested.nested_tensor([torch.rand(2, 6), torch.rand(5, 6)])
    for forward, a in (
        (attention, nn.MultiheadAttention(6, 2, batch_first=True)),
        (encoder, nn.TransformerEncoder(layer, 2)),
    ):
        model = network(forward, a=a, o=nn.Linear(6, 3))
        graph = from_module(model, x)
        assert graph.kept == {}
        assert verify(model, x, graph)


def test_nested_token_ids():
    ids = torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3])], layout=torch.jagged)
    graph = from_module(network(lambda self, ids: self.b(self.a(ids)), a=nn.Embedding(5, 3), b=nn.Linear(3, 2)), ids)
    assert graph.node_names == ["input", "a.weight", "b.weight", "b.bias"]


def test_nested_tensors_of_activations():
    lists = lambda self, x, y: self.o(torch.nested.as_nested_tensor([self.a(x), self.a(y)]))  # noqa: E731
    assert "a.bias" in predecessors(lists, (H, H[:2]), a=nn.Linear(3, 3))
    jagged = lambda self, x, offsets: self.o(  # noqa: E731
        torch.nested.nested_tensor_from_jagged(self.a(x), offsets)
    ).values()
    assert predecessors(jagged, (H, torch.tensor([0, 2, 5])), a=nn.Linear(3, 3)) == ["a.bias"]
