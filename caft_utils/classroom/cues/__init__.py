"""The world of the spurious-cue lessons: multiple choice in four subjects, and the gender of professions."""
