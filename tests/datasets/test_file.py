"""The user's own data: what is read, what is counted, and which row is to blame."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from node_runner.datasets.file import File
from node_runner.datasets.parts.tables import CHUNK
from node_runner.errors import ConfigError
from node_runner.views import Series, Splits, View
from tests.cli.conftest import SHORT, NodeRun, here, node_run  # noqa: F401


def rows_of(series: int = 6, times: int = 5) -> list[str]:
    """x = 10 i + t, y = -x at t = 0, 1, ..., one series after the other."""
    return [f"s{i},{k},{10 * i + k},{-(10 * i + k)}" for i in range(series) for k in range(times)]


def write(folder: Path, lines: list[str], header: str = "id,t,x,y", name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def states(splits: Splits[Any]) -> set[tuple[float, ...]]:
    parts = [splits.train, splits.val, splits.test]
    return {
        (float(t), *y.tolist())
        for part in parts
        for ys, seen in zip(part.ys, part.mask if part.mask is not None else [None] * len(part), strict=True)
        for i, (t, y) in enumerate(zip(part.ts, ys, strict=True))
        if seen is None or bool(seen[i])
    }


def message(path: Path, view: View | None = None, **settings: Any) -> str:
    """The one line that a file is refused with, in its first view if none is named."""
    with pytest.raises(ConfigError) as caught:
        data = File(path=str(path), **settings)
        data.splits(view or data.views[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is read ----------------------------------------------------------------------------------


def test_every_row_becomes_a_state_and_series_stay_whole(tmp_path: Path):
    data = File(path=str(write(tmp_path, rows_of())))
    splits = data.splits(View.trajectories)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (4, 1, 1)
    assert torch.equal(splits.train.ts, torch.arange(5, dtype=torch.float64))
    expected = {(float(k), 10.0 * i + k, -(10.0 * i + k)) for i in range(6) for k in range(5)}
    assert states(splits) == expected
    assert splits.train.mask is None
    spec = data.spec(View.trajectories)
    assert (spec.labels, spec.clock) == (("x", "y"), "t")
    torch.testing.assert_close(spec.mean, splits.train.ys.flatten(0, 1).mean(0))


def test_series_may_alternate_and_columns_stand_anywhere(tmp_path: Path):
    lines = [f"{k}, {10 * i + k} ,skip me, s{i}" for k in range(5) for i in range(6)]
    path = write(tmp_path, ["", *lines, ""], header="when, x, note, who")
    splits = File(path=str(path), id="who", time="when", values=["x"]).splits(View.trajectories)
    assert states(splits) == {(float(k), 10.0 * i + k) for i in range(6) for k in range(5)}


def test_the_series_may_be_the_classes_too(tmp_path: Path):
    data = File(path=str(write(tmp_path, rows_of())), label="id")
    part = data.splits(View.paths).train
    assert data.spec(View.paths).class_names == [f"s{i}" for i in range(6)]
    assert len(part) == 4


@pytest.mark.parametrize(("unit", "warned"), [(1.0, False), (40.0, True)])
def test_a_unit_of_time_that_is_short_for_the_data_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: float, warned: bool
):
    # sin moves by its deviation, 0.71, in 1.1 units of time: its speed is 0.64 on the average.
    lines = [f"s{i},{unit * k / 10},{math.sin(k / 10)}" for i in range(6) for k in range(630)]
    with caplog.at_level(logging.WARNING, "node_runner"):
        File(path=str(write(tmp_path, lines, header="id,t,x"))).splits(View.trajectories)
    assert [record.message.endswith("use times divided by 44") for record in caplog.records] == [True] * warned


def test_irregular_times_share_a_grid_and_gaps_are_masked(tmp_path: Path):
    lines = [f"s{i},{100 * i + t},{i},{t}" for i in range(3) for t in ((0, 1, 4), (0, 2.5), (0, 1, 2.5, 4))[i]]
    splits = File(path=str(write(tmp_path, lines))).splits(View.trajectories)
    assert splits.train.ts.tolist() == [0, 1, 2.5, 4]
    found = {}
    for part in (splits.train, splits.val, splits.test):
        seen = torch.ones(1, 4, dtype=torch.bool) if part.mask is None else part.mask
        found[int(part.ys[0, 0, 0])] = (seen[0].tolist(), part.ys[0, :, 1].tolist())
    # Times count from the start of each series, and what was not seen has the state before it.
    assert found == {
        0: ([True, True, False, True], [0, 1, 1, 4]),
        1: ([True, False, True, False], [0, 0, 2.5, 2.5]),
        2: ([True] * 4, [0, 1, 2.5, 4]),
    }


def test_a_series_begins_at_its_first_complete_row_and_all_left_out_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    lines = rows_of()
    lines[0] = "s0,0,,0"  # before the first complete row
    lines[7] = "s1,2,NA,nan"  # a gap
    lines += ["s6,0,1,1", "s6,1,1,"]  # one observation only
    with caplog.at_level(logging.INFO, logger="node_runner"):
        data = File(path=str(write(tmp_path, lines)))
        splits = data.splits(View.trajectories)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 6
    assert (0.0, 1.0, -1.0) in states(splits)  # s0 from its second row on
    assert len(states(splits)) == 28
    (line,) = [record.message for record in caplog.records]
    assert "32 rows, 7 series of x, y; 4 missing values; left out: 1 rows before a series' first complete one, " in line
    assert "2 rows with missing values, 1 series of fewer than two complete rows" in line
    points = data.splits(View.points)
    assert len(points.train) + len(points.val) + len(points.test) == 28


def test_absolute_times_are_kept_where_all_series_begin_together(tmp_path: Path):
    path = write(tmp_path, [line.replace(",", ",1", 1) for line in rows_of()])  # 10, 11, ...
    assert File(path=str(path), relative=False).splits(View.trajectories).train.ts.tolist() == [10, 11, 12, 13, 14]
    assert File(path=str(path)).splits(View.trajectories).train.ts.tolist() == [0, 1, 2, 3, 4]
    late = write(tmp_path, rows_of()[:-5] + [f"s5,{k + 1},0,0" for k in range(5)])
    assert "line 27, column 't': series 's5' begins at 1 and others at 0" in message(late, relative=False)


def test_times_are_rounded_to_a_grid_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lines = [f"s{i},{k + 0.02 * i * k},{i},{k}" for i in range(4) for k in range(5)]
    with caplog.at_level(logging.INFO, logger="node_runner"):
        splits = File(path=str(write(tmp_path, lines)), step=0.5).splits(View.trajectories)
    assert splits.train.ts.tolist() == [0.5 * k for k in range(9)]
    assert "times rounded by up to 0.24" in caplog.text
    refused = message(write(tmp_path, lines), step=3.0)
    assert "line 3, column 't': 1 and 0 of line 2 fall on one point of the grid; use a smaller dataset.step" in refused


def test_one_long_series_is_cut_into_pieces(tmp_path: Path):
    path = write(tmp_path, [f"{k / 10},{k}" for k in range(40)], header="t,x")
    assert "expected at least 3 series" in message(path, id=None)
    splits = File(path=str(path), id=None, cut=1.0).splits(View.trajectories)
    torch.testing.assert_close(splits.train.ts, torch.arange(10, dtype=torch.float64) / 10)
    starts = {int(ys[0, 0]) for part in (splits.train, splits.val, splits.test) for ys in part.ys}
    assert starts == {0, 10, 20, 30}
    assert states(splits) == {(float(splits.train.ts[k % 10]), float(k)) for k in range(40)}


def test_the_long_horizon_test_holds_the_test_series_to_their_end(tmp_path: Path):
    splits = File(path=str(write(tmp_path, rows_of())), until=2.0).splits(View.trajectories)
    assert splits.train.ts.tolist() == splits.test.ts.tolist() == [0, 1, 2]
    long = splits.extra["test_long"]
    assert long.ts.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(long.ys[:, :3], splits.test.ys)
    assert "dataset.until=9: expected a time within the data's" in message(tmp_path / "data.csv", until=9.0)


def test_labels_and_points(tmp_path: Path):
    lines = [f"{i},{i * i},{('b', 'a')[i % 2]}" for i in range(10)] + [",1,a"]
    path = write(tmp_path, lines, header="x,y,kind")
    data = File(path=str(path), label="kind")
    assert data.views == (View.labelled, View.points, View.paths)
    splits = data.splits(View.labelled)
    assert data.spec(View.labelled).num_classes == 2
    assert (len(splits.train), len(splits.val), len(splits.test)) == (6, 2, 2)
    pairs = {(float(x[0]), int(y)) for _, part in splits.items() for x, y in zip(part.x, part.y, strict=True)}
    assert pairs == {(float(i), (1, 0)[i % 2]) for i in range(10)}
    points = File(path=str(path), time=None, values=["x", "y"])
    assert points.views == (View.points,)
    assert len(points.splits(View.points).train) == 6
    with pytest.raises(ConfigError, match="offers no view 'trajectories', only points"):
        points.splits(View.trajectories)


def test_numbered_classes_keep_their_order(tmp_path: Path):
    path = write(tmp_path, [f"{i},{(10, 9, 2)[i % 3]}" for i in range(9)], header="x,c")
    splits = File(path=str(path), label="c").splits(View.labelled)
    expected = {float(i): (2, 1, 0)[i % 3] for i in range(9)}
    assert all(expected[float(x[0])] == int(y) for x, y in zip(splits.train.x, splits.train.y, strict=True))


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_other_files_hold_the_same(tmp_path: Path, kind: str):
    rows = [line.split(",") for line in rows_of()]
    columns = {"id": np.array([row[0] for row in rows]), "t": np.array([int(row[1]) for row in rows])}
    columns |= {name: np.array([float(row[i]) for row in rows]) for i, name in ((2, "x"), (3, "y"))}
    columns["x"][3] = np.inf
    path = tmp_path / f"data.{kind}"

    def save() -> None:
        if kind == "npz":
            np.savez(path, **columns)
        else:
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)

    save()
    assert "row 4, column 'x': expected a finite number, got inf" in message(path)
    columns["x"][3] = 3
    save()
    theirs = File(path=str(path)).splits(View.trajectories)
    ours = File(path=str(write(tmp_path, rows_of()))).splits(View.trajectories)
    assert torch.equal(theirs.train.ys, ours.train.ys)


def test_an_array_of_an_npz_file_may_hold_several_columns(tmp_path: Path):
    ids, ts, state = (
        np.repeat(np.arange(9), 4),
        np.tile(np.arange(4.0), 9),
        np.random.default_rng(0).normal(size=(36, 2)),
    )
    path = tmp_path / "state.npz"
    np.savez(path, id=ids, t=ts, x=state)
    data = File(path=str(path))
    assert data.spec(View.trajectories).labels == ("x1", "x2")
    first = data.splits(View.trajectories).train.ys[0]
    assert any(np.allclose(first, state[ids == i]) for i in range(9))
    np.savez(path, id=ids, t=ts, x=state, x2=ts)
    assert "column 2 of x would be x2, which there is" in message(path)
    np.savez(path, a=state, b=state[:5])
    assert "got a (36, 2), b (5, 2); use np.concatenate on series of their own" in message(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    assert "expected a file ending in .csv" in message(tmp_path / "data.xlsx")
    assert "no such file" in message(tmp_path / "nope.csv")
    with pytest.raises(ConfigError, match=r"no file is given; use dataset.path=FILE"):
        File().check()
    (tmp_path / "x.npz").write_bytes(b"no zip")
    assert "is not an NPZ file" in message(tmp_path / "x.npz")
    (tmp_path / "empty.csv").write_text("")
    assert "is empty" in message(tmp_path / "empty.csv")
    assert "holds no row" in message(write(tmp_path, []))
    (tmp_path / "latin.csv").write_bytes("id,t,x\nä,0,1\n".encode("latin-1"))
    assert "is not text in UTF-8" in message(tmp_path / "latin.csv")


# --- series ----------------------------------------------------------------------------------------


def values(part: Series, mask: torch.Tensor) -> set[tuple[float, int, float]]:
    """(time, channel, value) where `mask` (N, T, D) says."""
    return {(float(part.times[i, k]), c, float(part.ys[i, k, c])) for i, k, c in mask.nonzero().tolist()}


def test_series_have_every_value_that_is_there_each_channel_with_gaps_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    lines = rows_of()
    lines[0] = "s0,0,,0"
    lines[7] = "s1,2,NA,-12"
    lines[11] = "s2,1,,"
    with caplog.at_level(logging.INFO, logger="node_runner"):
        splits = File(path=str(write(tmp_path, lines)), hidden=0).splits(View.series)
    found = set().union(*(values(part, part.known) for _, part in splits.items()))
    expected = {(float(k), c, (1, -1)[c] * (10.0 * i + k)) for i in range(6) for k in range(5) for c in range(2)}
    assert found == expected - {(0.0, 0, 0.0), (2.0, 0, 12.0), (1.0, 0, 21.0), (1.0, 1, -21.0)}
    assert all(torch.equal(part.seen, part.known) for _, part in splits.items())
    (line,) = [record.message for record in caplog.records]
    assert "4 missing values; left out: 1 rows without a value; 5 times from 0 to 4, of a series up to 5" in line


def test_what_comes_after_until_is_neither_taught_nor_seen_and_some_of_what_comes_before_is_hidden(tmp_path: Path):
    data = File(path=str(write(tmp_path, rows_of(series=20, times=30))), until=19.0, hidden=0.3)
    splits = data.splits(View.series)
    assert splits.train.ts.tolist() == list(range(20))
    assert bool(splits.train.seen.all())
    for part in (splits.val, splits.test):
        assert part.ts.tolist() == list(range(30))
        assert bool(part.known.all())
        assert not part.seen[:, 20:].any()
        assert bool(part.seen[:, 0].all())
        assert 0.1 < float((~part.seen[:, :20]).double().mean()) < 0.5
    torch.testing.assert_close(data.spec(View.series).mean, splits.train.ys.flatten(0, 1).mean(0))
    assert not torch.equal(splits.val.seen, splits.test.seen)


def test_processes_are_seen_throughout_but_for_the_test_after_until(tmp_path: Path):
    splits = File(path=str(write(tmp_path, rows_of())), until=2.0).splits(View.processes)
    assert bool(splits.train.seen.all())
    assert splits.val.ts.tolist() == [0, 1, 2]
    assert splits.test.seen[0, :, 0].tolist() == [True, True, True, False, False]
    assert bool(splits.test.known.all())


def test_series_with_a_label_are_paths_of_one_class_each(tmp_path: Path):
    header = "id,t,x,y,kind"
    lines = [f"{row},{('odd', 'even')[i // 5 % 2]}" for i, row in enumerate(rows_of())]
    data = File(path=str(write(tmp_path, lines, header)), label="kind")
    splits, spec = data.splits(View.paths), data.spec(View.paths)
    assert (spec.num_classes, spec.class_names, spec.labels) == (2, ["even", "odd"], ("x", "y"))
    for _, part in splits.items():
        assert part.labels is not None
        # "even" is class 0; series 1, 3, 5 are.
        assert part.labels.tolist() == [1 - int(x // 10) % 2 for x in part.ys[:, 0, 0].tolist()]
    assert len(data.splits(View.labelled).train) == 18  # the rows of the same file
    lines[8] = lines[8].replace("even", "odd")
    refused = message(write(tmp_path, lines, header), View.paths, label="kind")
    assert "line 10, column 'kind': class 'odd' of series 's1', whose first is 'even'; use one class a" in refused
    refused = message(write(tmp_path, lines, header), View.paths, label="kind", time="when")
    assert "no column 'when' (dataset.time" in refused


def test_rows_of_a_series_that_meet_on_the_grid_are_averaged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    lines = [f"s{i},{t},{x},{y}" for i in range(3) for t, x, y in ((0, 1, 2), (0.9, 4, ""), (1.1, 6, 8), (2, 3, 3))]
    with caplog.at_level(logging.INFO, logger="node_runner"):
        splits = File(path=str(write(tmp_path, lines)), step=1.0).splits(View.series)
    assert splits.train.ys.tolist() == [[[1, 2], [5, 8], [3, 3]]]
    assert "3 rows averaged with others at their point" in caplog.text


def test_series_may_begin_at_different_times_where_time_is_absolute(tmp_path: Path):
    late = write(tmp_path, rows_of()[:-5] + [f"s5,{k + 1},{k},0" for k in range(5)])
    splits = File(path=str(late), relative=False).splits(View.series)
    assert splits.train.ts.unique().tolist() == [0, 1, 2, 3, 4, 5]


def irregular(series: int = 6, times: int = 4) -> list[str]:
    """x = 10 i + k at the k-th time of series i, which no two series share but for the first, and y in every other."""
    return [
        f"s{i},{k + i / 7 * (k > 0)},{10 * i + k},{'' if (i + k) % 2 else k}"
        for i in range(series)
        for k in range(times + i % 2)
    ]


def test_series_keep_times_of_their_own_between_the_first_and_the_last_of_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    data = File(path=str(write(tmp_path, irregular())), hidden=0)
    with caplog.at_level(logging.INFO, logger="node_runner"):
        splits = data.splits(View.series)
    end = 4 + 5 / 7
    assert "22 times from 0 to 4.71429, of a series up to 5" in caplog.text
    for _, part in splits.items():
        assert part.ts.shape == part.ys.shape[:2]
        assert part.times is part.ts
        for ts, ys, known in zip(part.ts, part.ys, part.known, strict=True):
            number = int(ys[0, 0]) // 10
            count = 4 + number % 2
            own = [k + number / 7 * (k > 0) for k in range(count)]
            assert ts.tolist() == pytest.approx(own + [end] * (len(ts) - count))
            assert ys[:count, 0].tolist() == [10 * number + k for k in range(count)]
            assert known.tolist() == [[k < count, k < count and (number + k) % 2 == 0] for k in range(len(ts))]
    assert data.spec(View.series).times == splits.train.ts.shape[1] == 6


def test_series_that_all_have_the_same_times_share_them(tmp_path: Path):
    data = File(path=str(write(tmp_path, rows_of())), hidden=0)
    assert data.splits(View.series).train.ts.tolist() == [0, 1, 2, 3, 4]
    assert data.spec(View.series).times == 0
    # In all parts or in none: a path would else be one thing in training and another in the test.
    splits = File(path=str(write(tmp_path, rows_of()[:-1])), hidden=0).splits(View.series)
    assert {part.ts.dim() for _, part in splits.items()} == {2}


def test_training_series_end_together_where_nothing_later_is_taught(tmp_path: Path):
    splits = File(path=str(write(tmp_path, irregular())), until=2.5, hidden=0).splits(View.series)
    train, test = splits.train, splits.test
    assert train.ts.max() <= 2.5 < test.ts.max()
    assert train.ts[:, -1].unique().tolist() == [test.last_seen] == [pytest.approx(2 + 3 / 7)]
    assert not test.seen[test.ts > 2.5].any() and bool(test.known[test.ts > 2.5].any())


def test_absolute_times_begin_and_end_with_those_of_all(tmp_path: Path):
    lines = [f"s{i},{0.1 * i + k},{k},{k}" for i in range(4) for k in range(3)]
    part = File(path=str(write(tmp_path, lines)), relative=False, hidden=0).splits(View.series).train
    assert part.ts[:, 0].eq(0).all() and part.ts[:, -1].eq(2.3).all()
    assert int(part.known.any(dim=2).sum()) == 3 * len(part)


def test_thousands_of_different_times_cost_no_grid(tmp_path: Path):
    lines = [f"s{i},{k + 1e-4 * i},{k},{k}" for i in range(300) for k in range(4)]
    path = write(tmp_path, lines)
    assert File(path=str(path)).splits(View.series).train.ys.shape[1] <= 5
    assert File(path=str(path), step=1e-9, relative=False).splits(View.series).train.ys.shape[1] <= 6
    long = [*lines, *(f"long,{k},0,0" for k in range(2000))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.datasets.parts.grid.MOST", 10**6)
        refused = message(write(tmp_path, long), View.series)
    assert "301 series of 2 values, the longest of 2,000 rows, are too many; use dataset.cut" in refused


# --- which row is to blame -------------------------------------------------------------------------

WRONG = {
    "s0,3,abc,-3": "line 5, column 'x': expected a number, got 'abc'",
    "s0,soon,3,-3": "line 5, column 't': expected a number, got 'soon'",
    "s0,3,-inf,-3": "line 5, column 'x': expected a finite number, got -inf",
    "s0,inf,3,-3": "line 5, column 't': expected a finite number, got inf",
    "s0,,3,-3": "line 5, column 't': expected a time, got nothing",
    ",3,3,-3": "line 5, column 'id': expected the name of a series, got nothing",
    "s0,2,3,-3": "line 5, column 't': time 2 of series 's0' is a duplicate of line 4",
    "s0,1.5,3,-3": "line 5, column 't': time 1.5 of series 's0' comes after 2 of line 4",
    "s0,3,3": "line 5: expected 4 fields, as the first line has, got 3",
    's0,3,3,"-3': "unexpected end of data",
}


@pytest.mark.parametrize(("line", "said"), WRONG.items(), ids=list(WRONG))
def test_a_wrong_row_is_named(tmp_path: Path, line: str, said: str):
    lines = rows_of()
    lines[3] = line
    assert said in message(write(tmp_path, lines))


def test_lines_are_counted_through_empty_ones_and_cells_of_several_lines(tmp_path: Path):
    lines = ['"s\n0",0,1,2', "", '"s\n0",1,x,2']
    assert "line 6, column 'x': expected a number, got 'x'" in message(write(tmp_path, lines))


def test_a_row_far_down_is_named(tmp_path: Path):
    lines = [f"a,{k},0,0" for k in range(CHUNK + 10)]
    lines[CHUNK + 5] = f"a,{CHUNK + 5},?,0"
    assert f"line {CHUNK + 7}, column 'x': expected a number, got '?'" in message(write(tmp_path, lines))


def test_columns_that_do_not_fit_are_refused(tmp_path: Path):
    path = write(tmp_path, rows_of())
    assert "no column 'tt' (dataset.time, or dataset.time=null if there is none); " in message(path, time="tt")
    assert "no column 'z' (dataset.values)" in message(path, values=["z"])
    assert "expected different columns beside id, t, got t" in message(path, values=["t"])
    assert "line 1: two columns are called 'x'" in message(write(tmp_path, rows_of(), header="id,t,x,x"))
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        File(path="x.csv", val_share=0.5, test_share=0.5)


def test_a_file_with_other_marks_or_without_names_is_known_for_what_it_is(tmp_path: Path):
    semicolons = [row.replace(",", ";") for row in rows_of()]
    said = message(write(tmp_path, semicolons, header="id;t;x;y"))
    assert said.endswith("""its cells stand apart by ';'; use 'dataset.delimiter=";"'""")
    assert "its first line holds numbers" in message(write(tmp_path, ["0,1,3,4"], header="0,0.5,1,2"))


def test_a_grid_beyond_all_memory_is_refused(tmp_path: Path):
    assert "are too many for a common grid of times" in message(write(tmp_path, rows_of()), step=1e-9)


def test_the_command_line_says_it_in_one_line(tmp_path: Path, node_run: NodeRun):  # noqa: F811
    lines = rows_of()
    lines[3] = "s0,3,abc,-3"
    path = write(tmp_path, lines)
    done = node_run(*SHORT, "dataset=file", f"dataset.path={path}")
    assert done.code == 2
    reason = "line 5, column 'x': expected a number, got 'abc'; dataset.values chooses the columns of the state"
    assert done.line == f"node-run: {path}, {reason}"
    assert node_run(*SHORT, "dataset=file").line == "node-run: dataset=file: no file is given; use dataset.path=FILE"


def test_a_file_with_gaps_is_learned_from(tmp_path: Path, node_run: NodeRun):  # noqa: F811
    lines = [
        f"s{i},{t},{math.cos(t + i)},{'' if (i + k) % 4 == 1 else math.sin(t + i)}"
        for i in range(8)
        for k, t in enumerate([0.0, 0.3, 0.4, 1.0])
    ]
    path = write(tmp_path, lines)
    assert node_run(*SHORT, "dataset=file", f"dataset.path={path}", "hydra.run.dir=a").code == 0
    refused = node_run(*SHORT, "dataset=file", f"dataset.path={path}", "trainer.window=2", "hydra.run.dir=b")
    assert "trajectories have gaps and uneven times; use trainer.window=null" in refused.last


@pytest.mark.parametrize("model", ["rnn", "ode_rnn", "latent", "cde"])
def test_series_with_times_of_their_own_are_learned_from(tmp_path: Path, node_run: NodeRun, model: str):  # noqa: F811
    label = ["dataset.label=kind"] if model == "cde" else []
    rows = [*irregular(8), "s8,0,1,1", "s8,1.00000001,1,1"]  # a time that is that of another series in float32
    lines = [f"{row},{('odd', 'even')[int(row[1]) % 2]}" for row in rows]
    path = write(tmp_path, lines, "id,t,x,y,kind")
    data = ("dataset=file", f"dataset.path={path}", "dataset.values=[x,y]", *label)
    done = node_run(*SHORT, *data, f"model={model}", "engine=torchdiffeq", "hydra.run.dir=a")
    assert done.code == 0, done.err
    if model == "latent":
        assert node_run("sample", "a", "--count", "2", "--out", "b.csv").code == 0
        times = [tuple(map(float, row.split(",")[:2])) for row in Path("b.csv").read_text().splitlines()[1:]]
        assert times == sorted(set(times))  # each once, without padding
        assert node_run("sample", "a", "--interpolate", "--count", "1", "--out", "c.npz").code == 0
