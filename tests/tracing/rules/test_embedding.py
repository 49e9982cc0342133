"""Tables whose rows are looked up."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import ParamSpec
from ghn_pyg.tracing.kept_reasons import enters
from tests.tracing.helpers import kinds, sources, weight
from tests.tracing.rules.helpers import graph_of, linear

IDS = torch.tensor([4, 1, 1])
LOOKED_UP = {
    "an index": lambda table, ids: table[ids],
    "an index and all columns": lambda table, ids: table[ids, :],
    "an index and an ellipsis": lambda table, ids: table[ids, ...],
    "embedding": lambda table, ids: F.embedding(ids, table),
    "index_select": lambda table, ids: torch.index_select(table, 0, ids),
    "index_select by keyword": lambda table, ids: torch.index_select(input=table, dim=0, index=ids),
    "index_select, a method": lambda table, ids: table.index_select(0, ids),
    "index_select, counted from the last": lambda table, ids: table.index_select(-2, ids),
    "gather": lambda table, ids: torch.gather(table, 0, ids[:, None].expand(-1, 5)),
    "gather, a method": lambda table, ids: table.gather(0, ids[:, None].repeat(1, 5)),
    "take_along_dim": lambda table, ids: torch.take_along_dim(table, ids[:, None], 0),
    "take_along_dim, a method": lambda table, ids: table.take_along_dim(ids[:, None], dim=0),
    "changed ids": lambda table, ids: torch.index_select(table, 0, (ids + 1).long()),
}


@pytest.mark.parametrize("look_up", LOOKED_UP.values(), ids=LOOKED_UP)
def test_rows_that_ids_choose_are_an_embedding(look_up):
    graph = graph_of(lambda self, ids: self.a(look_up(self.w, ids)), IDS, w=weight(11, 5), a=linear(5, 2))
    assert graph.node_names == ["input", "w", "a.weight"]
    assert kinds(graph) == ["input", "pos_enc", "conv"]
    assert graph.edge_index.tolist() == [[0, 1], [1, 2]]
    assert graph.params[1] == [ParamSpec("w", (11, 5), "position")]


MATRICES = {
    "an index": lambda self, ids: self.w[ids],
    "index_select": lambda self, ids: torch.index_select(self.w, 0, ids),
    "gather": lambda self, ids: self.w.gather(0, ids.view(3, 1, 1).expand(3, 5, 7)),
    "take_along_dim": lambda self, ids: torch.take_along_dim(self.w, ids.view(3, 1, 1), 0),
    "select": lambda self, ids: torch.select(self.w, 0, 2),
}


@pytest.mark.parametrize("look_up", MATRICES.values(), ids=MATRICES)
def test_matrices_that_ids_choose_are_a_stack(look_up):
    graph = graph_of(
        lambda self, x, ids: x.view(3, 1, 5) @ look_up(self, ids), (torch.rand(3, 5), IDS), w=weight(11, 5, 7)
    )
    assert not graph.kept
    assert graph.params[1] == [ParamSpec("w", (11, 5, 7), "weight", "in_out", stacked=1)]


def test_elements_of_other_dimensions_are_no_rows():
    graph = graph_of(
        lambda self, ids: self.a(torch.gather(self.w, 1, ids.view(3, 1))), IDS, w=weight(11, 5), a=nn.Linear(1, 2)
    )
    assert graph.kept == {"w": enters("gather")}


CONSTANT = torch.tensor([0, 0, 2])


def test_a_table_that_constants_look_up_first_has_the_predecessors_of_its_real_use():
    def forward(self, x, ids):
        start = self.table(CONSTANT)
        return self.b(self.table(ids + self.a(x).argmax(-1)) + start)

    members = {"table": nn.Embedding(11, 5), "a": linear(5, 3), "b": linear(5, 2)}
    graph = graph_of(forward, (torch.rand(3, 5), IDS), **members)
    assert sources(graph)["table.weight"] == ["a.weight"]
    assert kinds(graph) == ["input", "conv", "pos_enc", "conv"]
