def test_notebook_03_runs(run_fast):
    run_fast("03_directions_by_pca")
