"""Where recordings come from: catalogues and downloads."""
