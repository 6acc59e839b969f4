def test_notebook_08_runs(run_fast):
    run_fast("08_double_multiple_choice")
