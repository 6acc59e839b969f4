"""The experiments of the course as data: a study, its conditions by name, a model and seeds.

    python -m caft_utils run data/experiments/emergent.yaml

prints one row of rates per condition. The tests in tests/claims run the same studies, save the rows as
records and check them against the stated bounds.
"""
