"""Draw the figure of the README from a small study on the phantom: ``make figure``, a few minutes on two cores.

Keypoints of a slice, where one of them looks, and predicted against true contours, for a patient that neither
pretraining nor fine-tuning has seen.
"""

from pathlib import Path

import numpy as np
import torch

from kaf.canvas import panels, places, show_slice, square, styled
from kaf.config import resolve
from kaf.data.pairs import collate
from kaf.figures import attention_figure, contour_handles, draw_contours, keypoints_figure
from kaf.files import replacing
from kaf.finetune import load_network, z_score
from kaf.study import Study, open_study

METHOD, LABELLED = "kaf_pretrained", 8


def example(study: Study) -> tuple[int, int]:
    """Volume and slice: the largest heart in the first healthy test patient, at end diastole."""
    patient = min(study.split.test, key=lambda p: (study.store.patients[p] != "NOR", p))
    volume = study.store.select(patients=[patient], frames=["ED"])[0]
    return volume, int((study.store.label(volume) > 0).sum((1, 2)).argmax())


@styled
@torch.inference_mode()
def draw(study: Study, network: torch.nn.Module):
    """The three panels, all on the pixels that the network sees."""
    data = study.experiment.data
    sample = study.store.sample(*example(study), data.size, data.points)
    batch = collate([sample])
    image, truth = sample.image.numpy(), sample.label.numpy()
    predicted = network(z_score(batch), batch.keypoints).argmax(1)[0].numpy()
    maps = network.encoder.attention_maps(z_score(batch), batch.keypoints)
    xy, valid = places(sample.keypoints)
    centre = np.argwhere(truth > 0).mean(0)[::-1]
    query = int(np.where(valid, ((xy - centre) ** 2).sum(-1), np.inf).argmin())
    heads = torch.cat([level[-1][0, :, query] for level in maps.values()])  # last block of each level: (heads, K)
    weights = heads[heads.max(1).values.argmax()].numpy()  # the head that looks most selectively
    figure, axes = panels(3, 3, 1.1, 11.0)
    keypoints_figure(image, sample.keypoints, axes[0])
    attention_figure(image, sample.keypoints, weights, query, axes[1])
    show_slice(axes[2], image)
    draw_contours(axes[2], truth, predicted, study.store.structures)
    left, right, bottom, top = square([truth > 0], 12)[0]
    axes[2].set(xlim=(left, right), ylim=(bottom, top))
    axes[2].legend(handles=contour_handles(study.store.structures), loc="upper center", bbox_to_anchor=(0.5, 0),
                   ncols=3)
    return figure


def main() -> None:
    experiment = resolve("smoke", "phantom", data__spacing_mm=1.25, data__size=144, data__points=200, width=8,
                         finetune__optim__steps=300)
    study = open_study(experiment, device="cpu")
    run, _ = study.few_shot(METHOD, LABELLED)
    figure = draw(study, load_network(run, experiment, study.store, METHOD))
    file = Path(__file__).with_suffix(".png")
    with replacing(file) as draft:
        figure.savefig(draft, dpi=90)
    print(f"wrote {file.name}")


if __name__ == "__main__":
    main()
