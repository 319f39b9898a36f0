"""Does a model that is trained on mined data get better? Training, scores and tables that answer it, and no Dagster."""
