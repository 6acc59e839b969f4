def test_notebook_05_runs(run_fast):
    run_fast("05_interpretation_and_scores")
