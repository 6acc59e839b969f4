def test_notebook_11_runs(run_fast):
    run_fast("11_rivals")
