"""Pictures of what a small network learned of `glyphs`, for the README.

python docs/explanations.py docs

Trains LeNet-5 (half a minute) and draws: the deconvnet sheet of its last convolution, the evolution of features over
the epochs, how far attribution maps can be trusted, and what stages do with moved images.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from convarium import explain, train

DATA = "glyphs:side=32"


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as held:
        run, out = Path(held) / "run", Path(held) / "figures"
        options = dict(epochs=8, batch_size=32, image_size=32, threads=1, snapshots="0,1,2,4,8")
        train(DATA, model="lenet5_modern", output=run, **options)
        drawn = {
            "deconvnet": explain(run, data=DATA, method="deconvnet", stage="C5", count=1, limit=3000, output=out),
            "evolution": explain(run, data=DATA, method="evolution", stage="C3", limit=1000, output=out),
            "faithfulness": explain(run, data=DATA, method="faithfulness", count=52, output=out, format="svg"),
            "invariance": explain(run, data=DATA, method="invariance", count=52, output=out, format="svg"),
        }
        for name, explained in drawn.items():
            picture = Path(explained.rows[0].picture)
            shutil.copyfile(picture, folder / f"{name}{picture.suffix}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
