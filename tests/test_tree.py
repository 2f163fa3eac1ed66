"""What is derived from parents."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from small import closure, random_parents

from spec_core.tree import NOTHING, Tree, ancestors_of


@given(st.lists(st.tuples(st.just(20), st.integers(0, 9999)), min_size=1, max_size=3))
def test_ancestors_are_the_closure_of_parents(shapes):
    parents = [random_parents(*shape) for shape in shapes]
    right = torch.stack([closure(p) for p in parents])
    depth = int(right.sum(2).max()) - 1
    for bound in (depth, depth + 1, 19):
        assert torch.equal(ancestors_of(torch.tensor(parents), bound), right)
    index = torch.arange(20).expand(len(parents), -1)
    tree = Tree(index, torch.tensor(parents), index, -index.float(), index, depth)
    assert torch.equal(tree.ancestors, right)


def test_a_chain_is_its_own_closure():
    index = torch.arange(6)[None]
    parents = (index - 1).clamp(min=0)
    for chain in (True, False):
        tree = Tree(index, parents, index, -index.float(), index, depth=5, chain=chain)
        assert torch.equal(tree.ancestors[0], closure(parents[0].tolist()))
        assert tree.counts == [6]


@given(st.integers(1, 5))
def test_only_padding_is_cut(nodes):
    tokens = torch.tensor([[3, *[4] * (nodes - 1), *[NOTHING] * (6 - nodes)]])
    zero = torch.zeros_like(tokens)
    tree = Tree(tokens, zero, zero, zero.float(), zero, depth=min(1, nodes - 1)).first(nodes)
    assert tree.nodes == nodes and tree.counts == [nodes] and tree.depth < max(2, nodes)
    assert Tree.roots(tokens[:, :1]).counts == [1]
