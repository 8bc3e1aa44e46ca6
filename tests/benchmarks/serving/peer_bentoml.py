"""BentoML service with the same scoring script."""

import json

import bentoml

from cifarml.scoring import score


@bentoml.service(workers=1, traffic={"timeout": 30})
class Cifar10:
    def __init__(self) -> None:
        score.init()

    @bentoml.api(route="/score")
    def score(self, imagebase64: str) -> dict:
        ((_, answer),) = score.answer([("", json.dumps({"imagebase64": imagebase64}).encode())])
        return json.loads(answer)
