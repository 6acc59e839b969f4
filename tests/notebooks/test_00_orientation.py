def test_notebook_00_runs(run_fast):
    run_fast("00_orientation")
