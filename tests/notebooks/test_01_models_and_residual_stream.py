def test_notebook_01_runs(run_fast):
    run_fast("01_models_and_residual_stream")
