"""A flow in the plane becomes a GIF with all its frames; other runs are refused."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

from node_runner.run import run
from tests.runs import make_run


SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "animate_flow.py"


def test_a_flow_is_animated_and_a_trajectory_model_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main = runpy.run_path(str(SCRIPT))["main"]
    flow = make_run(dataset="two_moons", model="flow_matching", field="concatsquash", solver="midpoint")
    flow.solver.step_size = 0.25
    run(flow, tmp_path / "flow", live=False)
    assert main([str(tmp_path / "flow"), "--frames", "3", "--points", "20"]) == 0
    with Image.open(tmp_path / "flow" / "figures" / "flow.gif") as gif:
        # Equal frames that follow one another are kept as one, shown for longer.
        assert gif.is_animated and gif.n_frames >= 3
    run(make_run(solver="midpoint"), tmp_path / "other", live=False)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "other")])
    assert "use a run of model=cnf or flow_matching" in capsys.readouterr().err
