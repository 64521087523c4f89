"""Parameter counts against layers counted by hand, and the solved widths."""

import pytest

from foresight.decisions import cross_attention_parameters, mlp_parameters, mlp_width_for


@pytest.mark.parametrize(
    ("widths", "count"),
    [
        ([1536, 128], 196_736),
        ([1536, 2048, 128], 3_410_048),
        ([1536, 2048, 1024, 128], 5_377_152),
        ([1536, 4096, 4096, 2048, 128], 31_729_792),
        ([1536, 8192, 8192, 4096, 2048, 128], 121_919_616),
    ],
)
def test_mlp_counts_are_the_real_ones(widths, count):
    assert mlp_parameters(widths) == count


@pytest.mark.parametrize(("layers", "count"), [(2, 742_272), (4, 1_271_424), (6, 1_800_576)])
def test_cross_attention_counts_are_the_real_ones(layers, count):
    counted = cross_attention_parameters(source=1536, width=128, layers=layers, queries=128, target=128)
    assert counted == count


@pytest.mark.parametrize("target", [1_000_000, 5_000_000, 10_000_000, 50_000_000, 100_000_000])
def test_a_solved_width_meets_its_budget_within_five_percent(target):
    h = mlp_width_for(target, source=1536, target=128)
    assert mlp_parameters([1536, h, h, 128]) == pytest.approx(target, rel=0.05)


def test_a_budget_no_width_meets_is_refused():
    with pytest.raises(ValueError, match="within 5 %"):
        mlp_width_for(100, source=1536, target=128)
    with pytest.raises(ValueError, match="at least two positive widths"):
        mlp_parameters([1536])
