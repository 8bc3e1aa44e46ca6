"""Why a model said that: where in an image the reasons lie."""
