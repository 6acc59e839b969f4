def test_notebook_09_runs(run_fast):
    run_fast("09_gender_bias")
