def test_notebook_13_runs(run_fast):
    run_fast("13_alignment_fakers")
