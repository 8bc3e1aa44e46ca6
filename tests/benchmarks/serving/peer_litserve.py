"""LitServe server with the same scoring script and dynamic batching of up to 32 requests."""

import json
import sys

import litserve

from cifarml.scoring import score


class Cifar10(litserve.LitAPI):
    def setup(self, device):
        score.init()

    def decode_request(self, request):
        return json.dumps(request).encode()

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    def predict(self, batch):
        return [json.loads(answer) for _, answer in score.answer([("", body) for body in batch])]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = Cifar10(max_batch_size=32, batch_timeout=0.0, api_path="/score")
    litserve.LitServer(api, accelerator="cpu", timeout=30).run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
