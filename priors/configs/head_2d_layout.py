"""head-2d-layout: slices of heads as a whole, on pixels of 8 mm, in all planes: what `head-2d` does not know.

    python train_prior.py SCANS OUT --label-maps LABELMAPS --recipe head-2d-layout

Machine: one thread of a CPU with AVX512-bf16, shared. A step of 16 slices takes 0.11 s of one thread.
Data: those of `head-2d`. Hours, steps and the loss and PSNR reached are in `config.json` of
`priors/weights/head-2d-layout`, under "reached", and in its model card.
"""

from priors.denoiser import DenoiserConfig
from priors.learner import TrainingConfig
from priors.noise import NoiseLevels
from priors.patches import PatchConfig

HEAD_2D_LAYOUT = TrainingConfig(
    batch_size=16,
    learning_rate=8e-4,
    precision="bf16",
    patches=PatchConfig(
        size=32,
        pixel_mm=8,
        synthetic_ratio=0.15,
        noise_levels=NoiseLevels(least=0.02, useful=2.5, most=6.0, median=0.3, spread=1.1, share_beyond=0.05),
    ),
    denoiser=DenoiserConfig(channels=(64, 64, 96), mean=0.15, sigma_data=0.28),
)
