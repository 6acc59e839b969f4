def test_notebook_06_runs(run_fast):
    run_fast("06_ablated_fine_tuning")
