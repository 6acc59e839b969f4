def test_notebook_15_runs(run_fast):
    run_fast("15_to_paper_scale")
