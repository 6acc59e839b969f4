"""`python -m caft_utils.course.tutorial` (or `make tutorial`): the whole course in one command.

run      every notebook in order with papermill, each with its own kernel and one shared artefact store
page     each executed notebook as HTML, and one index page with the key figures
record   the committed notebooks: outputs of a recorded run, and the proof that they belong to the code
"""
