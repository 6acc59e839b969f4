def test_notebook_12_runs(run_fast):
    run_fast("12_focus_instructions")
