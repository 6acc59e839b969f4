def test_notebook_10_runs(run_fast):
    run_fast("10_why_it_works")
