def test_notebook_14_runs_or_says_what_it_needs(run_fast):
    run_fast("14_nnsight_and_ndif")
