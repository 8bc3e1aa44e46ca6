"""From images to a run folder. Import from :mod:`cifarml`; this room imports nothing by itself."""
