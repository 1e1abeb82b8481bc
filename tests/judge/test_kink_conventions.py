"""The table of kink conventions: manual_bp follows its declared ones, and JAX's LeakyReLU differs."""

from oracles.__main__ import main
from oracles.cli.layer_commands import measure_conventions


def test_manual_bp_follows_its_declared_conventions():
    rows = measure_conventions()
    assert {row.layer for row in rows} == {"LeakyReLU", "PReLU", "ReLU"}
    assert all(row.manual_bp == row.declared for row in rows)


def test_framework_conventions_are_measured():
    by_layer = {row.layer: row for row in measure_conventions()}
    assert (by_layer["ReLU"].torch, by_layer["ReLU"].jax) == (0, 0)
    assert (by_layer["LeakyReLU"].torch, by_layer["LeakyReLU"].jax) == (0.01, 1)
    assert (by_layer["PReLU"].torch, by_layer["PReLU"].jax) == (0.25, 0.25)  # JAX has none: the reference's


def test_the_command_prints_the_table(capsys):
    assert main(["conventions"]) == 0
    printed = capsys.readouterr().out
    assert "LeakyReLU" in printed
    assert max(map(len, printed.splitlines())) <= 100
