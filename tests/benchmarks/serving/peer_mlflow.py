"""MLflow model with the same scoring script, for ``mlflow models serve``."""

import json

import mlflow

from cifarml.scoring import score


class Cifar10(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        score.init()

    def predict(self, context, model_input, params=None):
        bodies = [json.dumps({"imagebase64": text}).encode() for text in model_input["imagebase64"]]
        return [json.loads(answer) for _, answer in score.answer([("", body) for body in bodies])]


mlflow.models.set_model(Cifar10())
