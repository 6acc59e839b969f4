def test_notebook_07_runs(run_fast):
    run_fast("07_evaluation")
