"""Attention as machine code: what torch finds, and the same bits alone, among others, anywhere."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_core.models import attention as code
from spec_core.models import products
from spec_core.models.attention import attention
from spec_core.models.forward import Keys, Sizes

SLOTS = 60
shapes = st.tuples(st.sampled_from([1, 2]), st.integers(1, 4), st.sampled_from([8, 24, 64, 96]))
# of each row: whether its text is that of the row before, and which slots it sees
rows = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40), st.sets(st.integers(0, SLOTS - 1), max_size=6)),
    min_size=1, max_size=9,
)  # fmt: skip


class Case:
    """Rows of random queries, and the keys and values of their texts."""

    def __init__(self, shape: tuple[int, int, int], some: list) -> None:
        key_heads, groups, width = shape
        self.lists = [sorted({*range(prefix), *more} | {SLOTS - 1}) for _, prefix, more in some]
        self.texts = np.cumsum([not same for same, *_ in some]) - (not some[0][0])
        self.sizes = Sizes(
            8, key_heads * groups, key_heads, width, (groups + 2) * key_heads * width, 8, 8, 8, 8,
            1e-5,
        )  # fmt: skip
        chance = np.random.default_rng(7)
        shape = (int(self.texts[-1]) + 1, SLOTS, 2 * key_heads, width)
        self.data = chance.normal(size=shape).astype(np.float32)
        self.qkv = chance.normal(size=(len(some), self.sizes.qkv)).astype(np.float32)

    def seen(self, shares: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `see` has it; shares: rows of a text may be read side by side."""
        counts = np.array([len(slots) for slots in self.lists])
        slots = np.zeros((len(counts), SLOTS + 4), np.int32)
        common = np.zeros(len(counts), np.int64)
        for n, found in enumerate(self.lists):
            slots[n, : counts[n]] = found
            if shares and n and self.texts[n] == self.texts[n - 1]:
                same = np.equal(slots[n], slots[n - 1])[: min(counts[n - 1 : n + 1])]
                common[n] = np.append(same, False).argmin()
        return slots, counts, common

    def found(self, shares: bool = True, attention=attention) -> np.ndarray:
        """What comes out, [rows, heads, width]."""
        sizes, count = self.sizes, len(self.qkv)
        mixed = np.empty((count, sizes.heads * sizes.width), np.float32)
        keys = Keys(self.data.ctypes.data, 0, self.data[0].size, self.data[0, 0].size)
        kept = attention(
            self.qkv, self.texts * count + np.arange(count), keys.address, keys, self.seen(shares),
            0, count, sizes, np.empty((count, 8), np.float32), mixed,
        )  # fmt: skip
        assert kept == count
        return mixed.reshape(count, sizes.heads, sizes.width)

    def right(self) -> torch.Tensor:
        """By torch, in doubles."""
        s, made = self.sizes, []
        for query, text, slots in zip(self.qkv, self.texts, self.lists, strict=True):
            q = torch.from_numpy(query[: s.heads * s.width]).view(s.heads, s.width).double()
            both = torch.from_numpy(self.data[text, slots]).double()  # [seen, heads, width]
            both = both.repeat_interleave(s.heads // s.key_heads, 1)
            keys, values = both[:, : s.heads], both[:, s.heads :]
            shares = (torch.einsum("hd,khd->hk", q, keys) / s.width**0.5).softmax(-1)
            made.append(torch.einsum("hk,khd->hd", shares, values))
        return torch.stack(made).float()


@settings(max_examples=60)
@given(shapes, rows)
def test_attention_is_that_of_torch_and_rows_have_the_bits_they_have_alone(shape, some):
    case = Case(shape, some)
    found = case.found()
    torch.testing.assert_close(torch.from_numpy(found), case.right(), atol=2e-6, rtol=1e-5)
    assert (found == case.found(shares=False)).all()


@pytest.mark.slow
def test_cores_with_few_registers_and_with_many_make_the_same_bits(tmp_path, monkeypatch):
    made = {}
    for wide in (False, True):
        monkeypatch.setattr(products, "WIDE", wide)
        path = tmp_path / f"attention_{wide}.py"
        shutil.copy(code.__file__, path)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert (module.TOGETHER == 4) == wide
        for groups, width in ((1, 64), (2, 64), (3, 24), (4, 96)):
            case = Case((2, groups, width), [(True, 30, {30 + n, 33}) for n in range(7)])
            found = case.found(attention=module.attention)
            assert (found == made.setdefault((groups, width), found)).all()
