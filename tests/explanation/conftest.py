"""What tests of explanations share."""

import pytest


@pytest.fixture(scope="session")
def snapshot_run(images, tmp_path_factory):
    """A ResNet-20 after two epochs on ``images`` at 16 pixels, with snapshots of all; tests must not change it."""
    from convarium import train

    output = tmp_path_factory.mktemp("runs") / "snapshots"
    options = dict(image_size=16, epochs=2, batch_size=8, threads=1, snapshots="all", flip=False)
    train(str(images), model="resnet20_cifar", output=output, **options)
    return output
