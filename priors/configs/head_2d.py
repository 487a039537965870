"""head-2d: slices of heads of any contrast, in all planes.

    python train_prior.py SCANS OUT --label-maps LABELMAPS --precision bf16 --batch-size 16 \
        --learning-rate 8e-4 --kernel-learning-rate 4e-4

Machine: one or two threads of a CPU with AVX512-bf16, shared; 1.3 GiB. A step of 8 patches takes 0.6 s of one thread.
Data: 10 scans of 8 subjects, 20 label maps; `data.json` of the checkpoint names them.
Hours, steps and the loss and PSNR reached are in `config.json` of `priors/weights/head-2d`, under "reached", and in its
model card; they change whenever the run goes on.
"""

from priors.learner import TrainingConfig

HEAD_2D = TrainingConfig(batch_size=16, learning_rate=8e-4, kernel_learning_rate=4e-4, precision="bf16")
