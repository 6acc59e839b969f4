def test_notebook_04_runs(run_fast):
    run_fast("04_sparse_autoencoders")
