"""Every field of a run, with the released recipe's values where they are known.

docs/config.md lists types, ranges and choices, also of other datasets, heads and
optimisers. Fields of `run` and `mesh` may change when a run resumes, no others.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the base config; the other files start from it."""
    config = ConfigDict()
    config.seed = 0  # decides initial weights, order, augmentation and dropout
    config.batch_size = 320  # images in the global batch (author's log)
    config.epochs = 30  # passes over the training photos

    # Which photos; `name` decides the other fields.
    config.data = ConfigDict()
    config.data.name = "gldv2"  # see docs/config.md
    config.data.manual_dir = ""  # what was downloaded; "" takes what was prepared
    config.data.subset = "clean"  # or no_overlap, full
    config.data.exclude_ids = ""  # a list of ids, for no_overlap
    config.data.split = ""  # a CSV (id,split) instead of one photo in five
    config.data.labels = ""  # a CSV (label,landmark_id) instead of the ids' order
    config.data.resize = 0  # longest shorter side in pixels; 0 keeps photos
    config.data.quality = 90  # of the JPEGs that shrunk photos become
    config.data.skip_bad = False  # skip photos that are missing or broken

    # How training photos vary.
    config.augmentation = ConfigDict()
    config.augmentation.size = 512  # side of the training square in pixels
    config.augmentation.min_area = 0.2  # smallest fraction of the photo in a crop
    config.augmentation.flip = 0.5  # probability of a horizontal flip
    config.augmentation.jitter = 0.8  # probability that colours vary at all
    config.augmentation.brightness = 0.4  # factor from 1 +- this
    config.augmentation.contrast = 0.4  # factor from 1 +- this
    config.augmentation.saturation = 0.2  # factor from 1 +- this
    config.augmentation.hue = 0.1  # turn of the colour circle from +- this

    # Photos -> descriptors; `head` decides some of the fields.
    config.model = ConfigDict()
    config.model.trunk = "resnet101"  # see docs/config.md
    config.model.head = "token"  # or another of configs/heads.py
    config.model.dtype = "float32"  # of the computation: float32, or bfloat16
    config.model.dim = 1024  # dimensions of a descriptor
    config.model.width = 1024  # channels of local features and tokens
    config.model.tokens = 4  # number of tokens
    config.model.tokenizer = "released"  # or "paper": its own equations
    config.model.query_init_std = 1.0  # of the tokenizer's initial queries
    # Of the linear layers: "released", or "lossless", which with small queries starts
    # as the trunk's mean: for few classes (models/heads/token/head.py).
    config.model.initialiser = "released"
    config.model.num_heads = 8  # heads of every attention
    config.model.attention_layers = 1  # self-attention among local features
    config.model.refinement = "released"  # or "paper": its own equations
    config.model.refinement_layers = 2  # refinement of the tokens
    config.model.dropout = 0.1  # in attentions and MLPs
    config.model.remat = False  # less memory in training for a third more work
    config.model.frozen_stages = 0  # first stages of the trunk that are frozen
    config.model.drop_path = 0.1  # examples that skip a residual branch

    # Weights of a new run: folders of a run, or of what `tokret convert from-torch`
    # wrote; "" for random ones, by the seed.
    config.init = ConfigDict()
    config.init.checkpoint = ""  # the whole model, without its classifier
    config.init.trunk = ""  # the trunk alone, such as ImageNet's

    # Descriptors -> logits.
    config.arcface = ConfigDict()
    config.arcface.scale = 32.0  # of the cosines; released: sqrt(dim)
    config.arcface.margin = 0.2  # in radians

    # Learning rates.
    config.schedule = ConfigDict()
    config.schedule.base_lr = 0.01  # peak learning rate for a batch of 256
    # The batch by which the rate is scaled, / 256: that of one GPU, as released (320
    # images on four cards). 0 takes batch_size.
    config.schedule.reference_batch_size = 80
    config.schedule.warmup_init_lr = 1e-4  # learning rate of the first step, as base_lr
    config.schedule.warmup_epochs = 5.0  # epochs of linear warm-up
    config.schedule.decay = "cosine"  # to 0 at the end: cosine, or linear

    # Updates; `name` decides some of the fields.
    config.optimiser = ConfigDict()
    config.optimiser.name = "sgd"  # or adamw, which has no momentum
    config.optimiser.momentum = 0.9  # Nesterov's
    config.optimiser.weight_decay = 1e-4  # not on biases and one-dimensional tensors
    config.optimiser.max_grad_norm = 0.0  # of all gradients together; 0: no limit
    config.optimiser.trunk_lr_multiplier = 1.0  # factor of the trunk's learning rate
    config.optimiser.frozen_epochs = 0.0  # first epochs in which the trunk is frozen

    # From gradients to the next state.
    config.updates = ConfigDict()
    config.updates.grad_accum_steps = 1  # micro-batches of a batch
    config.updates.ema_decay = 0.0  # of an EMA of the weights, as 0.999; 0: no EMA
    config.updates.max_nonfinite_steps = 10  # consecutive skipped steps allowed

    # Devices.
    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that split the images; -1: all that are left
    config.mesh.model = 1  # devices that split the class matrix
    config.mesh.shard_optimiser = False  # momentum and EMA over all devices

    # Photos -> descriptors in evaluation.
    config.evaluation = ConfigDict()
    config.evaluation.longest_side = 1024  # of a database photo, in pixels
    config.evaluation.scales = (1.0, 2**0.5, 2**-0.5)  # factors of the sides
    config.evaluation.batch_size = 8  # views a batch; a multiple of a host's devices
    config.evaluation.canvases = 8  # most padded shapes, up to 12, each compiled

    # What does not change the result.
    config.run = ConfigDict()
    config.run.data_dir = "~/.cache/tokret"  # of prepared datasets
    # Folder of compiled programs, which a second start reuses; "": none.
    config.run.compilation_cache = "~/.cache/tokret/compiled"
    config.run.log_every = 50  # steps between lines of metrics
    config.run.checkpoint_every = 1000  # steps between checkpoints; also at the end
    config.run.keep = 3  # newest checkpoints that are kept
    # The checkpoint with the best loss, top1 or top5 on validation photos is kept too,
    # and every validation saves one; "" for neither.
    config.run.keep_best = "top1"
    config.run.threads = 16  # threads that decode and augment
    # Fraction of an epoch's photos that may be skipped because decoding fails.
    config.run.max_skipped_fraction = 0.01
    return config
