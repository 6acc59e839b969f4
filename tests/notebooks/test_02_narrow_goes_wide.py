def test_notebook_02_runs(run_fast):
    run_fast("02_narrow_goes_wide")
