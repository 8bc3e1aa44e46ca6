"""Why a model said that: where in a picture the reasons lie."""
