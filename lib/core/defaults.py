"""Every option, declared once: default, bounds, choices and meaning. Adding an option means adding one entry here.

Choices that belong to an implementation are listed with it and checked there: MODEL.MODEL_NAME, MODEL.VIDEO_ARC_CHOICE,
MODEL.DEPTH, RESNETS.TRANS_FUNC, NONLOCAL.AFTER, NONLOCAL.AFFINITY, NONLOCAL.REACH and TEST.OUTPUT_NAME
(models.model_builder_video), and SOLVER.LR_POLICY (utils.lr_policy).
"""

import copy
from typing import TypeAlias, Union

from core.option import Option
from utils.collections import AttrDict

OptionGroup: TypeAlias = dict[str, Union[Option, "OptionGroup"]]

OPTIONS: OptionGroup = {
    # Data
    "DATADIR": Option("", "Folder with the LMDBs (or lists) train, val and test."),
    "DATASET": Option("", "A name for the log.", nullable=True),
    "FILENAME_GT": Option(
        "data/kinetics/val_all_list.txt", "List with the true labels of the test videos; None: no scoring.",
        nullable=True),
    "DATADIR_TRAIN_TIME": Option("kinetics/alllist", "Never read, not even by legacy.", unused=True),
    "DATADIR_TEST_TIME": Option("data/kinetics/kinetics_lmdb_gfsai", "Never read, not even by legacy.", unused=True),
    "DATALOADER": {
        "MAX_BAD_IMAGES": Option(100, "Number of distinct unreadable videos that a training run tolerates.", low=0),
        "AS_STORED": Option(
            False, "Read frames as the Caffe2 program did: as they are stored, of the first video stream. Otherwise "
            "they are turned by their display matrix, and of several streams ffmpeg's default is read."),
        "HANG_SECONDS": Option(300, "Seconds without a frame from a video after which the run ends; 0: never.", low=0),
    },
    # Machine
    "NUM_GPUS": Option(
        8, "Number of replicas, each with its own batch norm statistics and BATCH_SIZE / NUM_GPUS clips.", low=1),
    "NUM_PROCESSES": Option(
        0, "Maximum number of devices to spread the replicas over; 0: every visible GPU, or one process on a CPU.",
        low=0),
    "JOIN_SECONDS": Option(
        1800, "Seconds that the processes of a run wait for each other at its start; 0: forever.", low=0),
    "PEER_SECONDS": Option(
        1800, "Seconds that a process of a run waits for another later on; at least twice DATALOADER.HANG_SECONDS.",
        low=1),
    "ROOT_GPU_ID": Option(0, "Index of the first device.", low=0),
    "VIDEO_DECODER_THREADS": Option(4, "Number of decoders per replica.", low=1),
    "RNG_SEED": Option(2, "Seed of every random draw.", low=0),
    "LOG_PERIOD": Option(10, "Iterations between training lines in the log.", low=1),
    "CUDNN_WORKSPACE_LIMIT": Option(256, "Legacy's cuDNN workspace in MiB.", unused=True),
    "OUTPUT_DIR": Option("gen", "Never read, not even by legacy.", unused=True),
    "PROF_DAG": Option(False, "Legacy's profiling of the network.", unused=True),
    "DEBUG": Option(False, "Legacy's switch for running without NCCL.", unused=True),
    "TRAIN": {
        "PARAMS_FILE": Option("", "File of weights to start from.", nullable=True),
        "DATA_TYPE": Option("train", "Name of the split under DATADIR."),
        "BATCH_SIZE": Option(64, "Clips per iteration over all replicas.", low=1),
        "MEM_CACHE": Option(False, "Never read, not even by legacy.", unused=True),
        "RESUME_FROM_BATCH_SIZE": Option(
            -1, "If positive, the batch size with which the iteration stored in the weights was counted."),
        "RESET_START_ITER": Option(False, "Take only the weights from the file, and start at iteration 0."),
        "JITTER_SCALES": Option([256, 480], "Range of the short side in pixels.", items=int, low=1, interval=True),
        "CROP_SIZE": Option(224, "Side of the crop in pixels.", low=1),
        "COMPUTE_PRECISE_BN": Option(
            True, "Recompute the batch norm statistics before evaluations and checkpoints."),
        "ITER_COMPUTE_PRECISE_BN": Option(200, "Iterations over which those statistics are computed.", low=1),
        "EVAL_PERIOD": Option(5005, "Iterations between evaluations.", low=1),
        "DATASET_SIZE": Option(234643, "Number of videos, for the epoch count in the log.", low=1),
        "VIDEO_LENGTH": Option(32, "Frames per clip.", low=1),
        "SAMPLE_RATE": Option(2, "Stride between the frames of a clip.", low=1),
        "DROPOUT_RATE": Option(0.0, "Dropout before the classifier, in training only.", low=0, high=1),
        "CHECKPOINT_ACTIVATIONS": Option(
            False, "Keep only the input of each block and recompute the rest in the backward pass, to save memory."),
        "TEST_AFTER_TRAIN": Option(False, "Finish with the fully convolutional test of the last checkpoint."),
    },
    "MODEL": {
        "MODEL_NAME": Option("", "Name of the network: resnet_video or resnet_video_org."),
        "NUM_CLASSES": Option(-1, "Number of classes."),
        "VIDEO_ARC_CHOICE": Option(1, "Architecture: 1 C2D R50, 2 I3D R50, 3 C2D R101, 4 I3D R101."),
        "DEPTH": Option(50, "Depth of the ResNet, 50 or 101, which must agree with VIDEO_ARC_CHOICE."),
        "BN_MOMENTUM": Option(
            0.9, "Weight of the old value in a running statistic (Caffe2's convention).", low=0, high=1),
        "BN_EPSILON": Option(1.0000001e-5, "Epsilon of batch norm.", low=0),
        "BN_INIT_GAMMA": Option(1.0, "Initial scale of the last batch norm in every residual branch."),
        "FC_INIT_STD": Option(0.01, "Standard deviation of the classifier's initial weights.", low=0),
        "MEAN": Option(114.75, "Mean subtracted from all channels, on the scale 0..255."),
        "STD": Option(57.375, "Standard deviation that all channels are divided by, on the scale 0..255.", above=0),
        "USE_BGR": Option(False, "Channel order BGR instead of RGB."),
        "USE_AFFINE": Option(False, "Use frozen affine layers in place of batch norm."),
        "PRECISION": Option(
            "tf32", "Arithmetic: float32 (strict), tf32 (on GPUs that support it) or bfloat16; see models.precision.",
            choices=("float32", "tf32", "bfloat16")),
        "COMPILE": Option(
            "auto", "When to use torch.compile; auto: where a long run makes it worthwhile.",
            choices=("auto", "always", "never")),
        "ALLOW_INPLACE_SUM": Option(True, "Legacy's memory optimisation.", unused=True),
        "ALLOW_INPLACE_RELU": Option(True, "Legacy's memory optimisation.", unused=True),
        "ALLOW_INPLACE_RESHAPE": Option(True, "Legacy's memory optimisation.", unused=True),
        "MEMONGER": Option(True, "Legacy's memory optimisation.", unused=True),
        "SAMPLE_THREADS": Option(8, "Never read, not even by legacy.", unused=True),
    },
    "RESNETS": {
        "NUM_GROUPS": Option(1, "Groups of the 3 x 3 convolutions.", low=1),
        "WIDTH_PER_GROUP": Option(64, "Channels per group in res2; later stages double it.", low=1),
        "STEM_OUT_CHANNELS": Option(64, "Channels of conv1; res2 to res5 have 4, 8, 16 and 32 times as many.", low=1),
        "STRIDE_1X1": Option(False, "Never read, not even by legacy.", unused=True),
        "TRANS_FUNC": Option(
            "bottleneck_transformation",
            "Residual branch: bottleneck_transformation or bottleneck_transformation_3d, which mean the same."),
    },
    "TEST": {
        "PARAMS_FILE": Option("", "File of weights to test.", nullable=True),
        "DATA_TYPE": Option("", "Name of the split under DATADIR."),
        "BATCH_SIZE": Option(64, "Clips per batch over all replicas.", low=1),
        "TEN_CROP": Option(False, "Deprecated: True is refused."),
        "SCALE": Option(256, "Short side in pixels.", low=1),
        "CROP_SIZE": Option(224, "Never read, not even by legacy, which tests at TRAIN.CROP_SIZE.", unused=True),
        "OUTPUT_NAME": Option(
            "pred", "What is summed over the clips: pred (scores), softmax (probabilities), or any other blob of the "
            "network, e.g. pool5."),
        "TEST_FULLY_CONV": Option(False, "Test on three crops of TRAIN.JITTER_SCALES[0]."),
        "TEST_FULLY_CONV_FLIP": Option(False, "Test on six crops: those three and their mirror images."),
        "TEST_FULL_SIZE": Option(
            False, "Test on whole frames of short side SCALE in one pass, as the paper does, instead of crops."),
        "GLOBAL_AVE": Option(False, "Never read, not even by legacy.", unused=True),
        "DATASET_SIZE": Option(19761, "Number of test videos.", low=1),
        "VIDEO_LENGTH": Option(32, "Never read, not even by legacy, which takes TRAIN.VIDEO_LENGTH.", unused=True),
        "SAMPLE_RATE": Option(2, "Never read, not even by legacy, which takes TRAIN.SAMPLE_RATE.", unused=True),
        "NUM_TEST_CLIPS": Option(10, "Clips times crops per video.", low=1),
        "USE_MULTI_CROP": Option(
            0, "Crops per clip: 1 three, 2 six; set by the test tool.", choices=(0, 1, 2)),
    },
    "SOLVER": {
        "NESTEROV": Option(True, "Use Nesterov momentum."),
        "WEIGHT_DECAY": Option(0.0001, "Weight decay of all parameters without _bn in their name.", low=0),
        "WEIGHT_DECAY_BN": Option(0.0001, "Weight decay of the parameters with _bn in their name.", low=0),
        "MOMENTUM": Option(0.9, "Momentum of the updates.", low=0, high=1),
        "LR_POLICY": Option("steps_with_relative_lrs", "Learning rate policy, a key of utils.lr_policy.POLICIES."),
        "BASE_LR": Option(0.1, "Learning rate that the policy starts from.", low=0),
        "STEP_SIZES": Option([150150, 150150, 150150], "Iterations of each step.", items=int, low=0),
        "LRS": Option(
            [1, 0.1, 0.01], "Learning rate of each step, relative to BASE_LR under steps_with_relative_lrs.",
            items=float, low=0),
        "MAX_ITER": Option(500500, "Number of iterations.", low=1),
        "STEPS": Option(
            None, "First iteration of each step; None: the running sum of STEP_SIZES.", items=int, low=0,
            nullable=True),
        "STEP_SIZE": Option(1, "Iterations between decays under the policy `step`.", low=1),
        "GAMMA": Option(0.1, "Factor of each decay under the policies `step` and `steps_with_decay`.", low=0),
        "SCALE_MOMENTUM": Option(False, "Scale the update history when the learning rate changes."),
        "WARMUP": {
            "WARMUP_ON": Option(False, "Warm the learning rate up linearly."),
            "WARMUP_START_LR": Option(0.1, "Learning rate of the first iteration.", low=0),
            "WARMUP_END_ITER": Option(25025, "First iteration after the warm-up.", low=0),
        },
    },
    "CHECKPOINT": {
        "DIR": Option(".", "Folder of the run: checkpoints go to DIR/checkpoints."),
        "RESUME": Option(True, "Resume from the newest checkpoint in DIR."),
        "CHECKPOINT_PERIOD": Option(-1, "Iterations between checkpoints; <= 0: only one, at the last iteration."),
        "KEEP_LAST": Option(0, "Number of checkpoints to keep, deleting older ones; 0: keep all.", low=0),
        "CHECKPOINT_MODEL": Option(True, "Never read, not even by legacy.", unused=True),
    },
    "NONLOCAL": {
        "CONV3_NONLOCAL": Option(True, "Put non-local blocks into res3."),
        "CONV4_NONLOCAL": Option(True, "Put non-local blocks into res4."),
        "LAYER_MOD": Option(2, "Put one block after every LAYER_MOD residual blocks.", low=1),
        "AFTER": Option(
            [], "Residual blocks that a non-local block follows, e.g. ['res4_4']; empty: see the three options above."),
        "USE_SOFTMAX": Option(True, "Normalise with softmax; False: dot product divided by the number of positions."),
        "AFFINITY": Option(
            "", "gaussian, embedded_gaussian, dot_product or concatenation; empty: determined by USE_SOFTMAX."),
        "REACH": Option(
            "spacetime", "Attention span: spacetime (the whole clip), space (the same frame) or time (the same "
            "location)."),
        "USE_SCALE": Option(True, "Scale the affinity by the inverse square root of its number of channels."),
        "USE_MAXPOOL": Option(True, "Subsample phi and g with max pooling."),
        "USE_ZERO_INIT_CONV": Option(False, "Initialise the output convolution with zeros."),
        "CONV_INIT_STD": Option(0.01, "Standard deviation of the convolutions' initial weights.", low=0),
        "NO_BIAS": Option(0, "If not 0, the four convolutions have no bias."),
        "USE_BN": Option(True, "Put batch norm after the output convolution."),
        "USE_AFFINE": Option(False, "Put a frozen affine layer after the output convolution."),
        "BN_MOMENTUM": Option(0.9, "As MODEL.BN_MOMENTUM.", low=0, high=1),
        "BN_EPSILON": Option(1.0000001e-5, "As MODEL.BN_EPSILON.", low=0),
        "BN_INIT_GAMMA": Option(0.0, "Initial scale of that batch norm."),
    },
    "METRICS": {
        "EVAL_FIRST_N": Option(False, "Also evaluate on the first FIRST_N classes alone."),
        "FIRST_N": Option(1000, "Number of those classes.", low=1),
    },
}


def default_config(options: OptionGroup = OPTIONS) -> AttrDict:
    """A new AttrDict of all options with their defaults."""
    return AttrDict({
        name: copy.deepcopy(entry.default) if isinstance(entry, Option) else default_config(entry)
        for name, entry in options.items()
    })
