"""Timer of the same network and training step in eager PyTorch, as in its documentation; see keras_step.py.

It uses autocast to bfloat16, or float32 if that is faster (on a processor without bfloat16).
"""

import sys
import time

import torch
from torch import nn


def network(widths: list[int]) -> nn.Module:
    """Build the network of the preset ``fast``; see src/cifarml/model/convnet.py."""
    whitening = nn.Conv2d(3, 24, 2, bias=False)
    whitening.weight.requires_grad = False
    stack: list[nn.Module] = [whitening, nn.ReLU(inplace=True)]
    channels = 24
    for width in widths:
        for position in range(2):
            stack.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
            if position == 0:
                stack.append(nn.MaxPool2d(2))
            normalisation = nn.BatchNorm2d(width, momentum=0.4)
            normalisation.weight.requires_grad = False
            stack += [normalisation, nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*stack, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def main(widths: str, batch_size: int, num_steps: int) -> None:
    """Warm up, then train a round for each line of standard input, and print ms per image."""
    torch.manual_seed(0)
    model = network([int(width) for width in widths.split("/")]).to(memory_format=torch.channels_last)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-3)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    images = torch.randint(0, 256, (8, batch_size, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(0, 10, (8, batch_size))

    def train(count: int, *, reduced: bool) -> float:
        started = time.perf_counter()
        for step in range(count):
            # NHWC in memory, as in Keras, viewed as NCHW: PyTorch's channels_last format
            pixels = images[step % 8].permute(0, 3, 1, 2).float().div_(255).sub_(0.449).div_(0.226)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
                logits = model(pixels)
            loss = loss_of(logits.float(), labels[step % 8])
            loss.backward()
            optimizer.step()
        return 1000 * (time.perf_counter() - started) / count / batch_size

    for reduced in (True, False):
        train(5, reduced=reduced)
    quicker = train(5, reduced=True) < train(5, reduced=False)
    print(f"ready: {'autocast to bfloat16' if quicker else 'float32'}", flush=True)
    for _ in sys.stdin:
        print(train(num_steps, reduced=quicker), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
