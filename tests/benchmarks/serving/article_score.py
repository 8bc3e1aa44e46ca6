"""The article's scoring script (step 5c): Keras, an image in base64, and model.predict."""

import base64
import io
import json
import os

import numpy as np
from keras.models import load_model
from PIL import Image

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def init():
    global model
    model = load_model(os.environ["AZUREML_MODEL_DIR"] + "/model.keras")


def run(raw_data):
    image = Image.open(io.BytesIO(base64.b64decode(json.loads(raw_data)["imagebase64"])))
    # The article's script scales pixels; this model does that itself.
    batch = np.asarray(image.convert("RGB"), dtype="uint8").reshape(1, 32, 32, 3)
    return {"result": NAMES[int(np.argmax(model.predict(batch, verbose=0)))]}
