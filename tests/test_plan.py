"""Plans and templates: what is refused, and how they shrink."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import plans, templates

from spec_core import AUTOREGRESSIVE, Plan, Template


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": -1},
        {"depth": 1, "width": 0},
        {"depth": 1, "children": -1},
        {"depth": 1, "budget": 0},
        {"depth": 1, "threshold": 1.1},
        {"depth": 1, "threshold": float("nan")},
        {"depth": 1, "frontier": "worst"},
        {"depth": 2, "template": Template((0,), (0,))},
    ],
)
def test_bad_plans_are_refused(fields):
    with pytest.raises(AssertionError):
        Plan(**fields)


@pytest.mark.parametrize(
    "shape", [((0, 0), (0,)), ((1,), (0,)), ((0, 2), (0, 0)), ((0,), (-1,)), ((0, 0), (1, 1))]
)
def test_bad_templates_are_refused(shape):
    with pytest.raises(AssertionError):
        Template(*shape)


@given(plans(), st.integers(-3, 8), st.integers(-3, 70))
def test_a_plan_shrinks_to_what_fits(plan, depth, budget):
    small = plan.within(depth, budget)
    assert small.depth == max(0, min(plan.depth, depth))
    assert small.budget == max(1, min(plan.budget, budget))
    assert small.within(depth, budget) == small
    assert (small is plan) == (plan.depth <= depth and plan.budget <= budget)


@given(templates(), st.integers(0, 9))
def test_a_cut_template_has_the_nodes_above_the_cut(template, depth):
    cut = template.cut(depth)
    assert sorted(cut.depths) == sorted(d for d in template.depths if d <= depth)
    assert sorted(cut.ranks) == sorted(
        r for r, d in zip(template.ranks, template.depths[1:], strict=True) if d <= depth
    )


def test_the_plain_step_drafts_nothing():
    assert AUTOREGRESSIVE.depth == 0 and AUTOREGRESSIVE.budget == 1
