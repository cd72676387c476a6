"""Every option, its default and its meaning."""

from utils.collections import AttrDict


def default_config():
    """A new AttrDict of all options with their defaults. Adding an option means adding it here."""
    return AttrDict(
        # Where the data are
        DATADIR="",  # folder with the LMDBs (or lists) train, val and test
        DATASET="",  # a name for the log
        FILENAME_GT="data/kinetics/val_all_list.txt",  # true labels of the test videos; None: no scoring
        DATADIR_TRAIN_TIME="kinetics/alllist",
        DATADIR_TEST_TIME="data/kinetics/kinetics_lmdb_gfsai",
        DATALOADER=AttrDict(
            MAX_BAD_IMAGES=100,  # distinct unreadable videos that a training run survives
            HANG_SECONDS=300,  # a video that gives no frame for so long ends the run; 0: never
        ),
        # The machine
        NUM_GPUS=8,  # replicas, each with its own batch norm statistics and BATCH_SIZE / NUM_GPUS clips
        NUM_PROCESSES=0,  # devices to spread the replicas over, at most; 0: every visible GPU, or one process on a CPU
        ROOT_GPU_ID=0,  # the first device
        VIDEO_DECODER_THREADS=4,  # decoders per replica
        RNG_SEED=2,  # every random draw follows from it
        LOG_PERIOD=10,  # iterations between training lines
        CUDNN_WORKSPACE_LIMIT=256,
        OUTPUT_DIR="gen",
        PROF_DAG=False,
        DEBUG=False,
        TRAIN=AttrDict(
            PARAMS_FILE="",  # weights to start from
            DATA_TYPE="train",  # name of the split under DATADIR
            BATCH_SIZE=64,  # clips per iteration over all replicas
            MEM_CACHE=False,
            RESUME_FROM_BATCH_SIZE=-1,  # > 0: the weights' iteration was counted with this batch size
            RESET_START_ITER=False,  # take the weights only, start at iteration 0
            JITTER_SCALES=[256, 480],  # range of the short side, pixels
            CROP_SIZE=224,  # pixels
            COMPUTE_PRECISE_BN=True,  # batch norm statistics anew before evaluations and checkpoints
            ITER_COMPUTE_PRECISE_BN=200,  # iterations that those statistics are taken from
            EVAL_PERIOD=5005,  # iterations between evaluations
            DATASET_SIZE=234643,  # videos, for the epoch count in the log
            VIDEO_LENGTH=32,  # frames in a clip
            SAMPLE_RATE=2,  # stride between them
            DROPOUT_RATE=0.0,  # before the classifier, in training only
            CHECKPOINT_ACTIVATIONS=False,  # keep each block's input alone and compute the rest again: less memory
            TEST_AFTER_TRAIN=False,  # end with the fully convolutional test of the last checkpoint
        ),
        MODEL=AttrDict(
            MODEL_NAME="",  # resnet_video or resnet_video_org
            NUM_CLASSES=-1,
            VIDEO_ARC_CHOICE=1,  # 1 C2D R50, 2 I3D R50, 3 C2D R101, 4 I3D R101
            DEPTH=50,  # 50 or 101, as VIDEO_ARC_CHOICE has it
            BN_MOMENTUM=0.9,  # share of the old value in a running statistic (Caffe2's sense)
            BN_EPSILON=1.0000001e-5,
            BN_INIT_GAMMA=1.0,  # of the last batch norm of every residual branch
            FC_INIT_STD=0.01,
            MEAN=114.75,  # one value for all channels, on the scale 0..255
            STD=57.375,
            USE_BGR=False,  # channel order; False is RGB
            USE_AFFINE=False,  # frozen affine layers in place of batch norm
            PRECISION="tf32",  # float32 (strict), tf32 (on GPUs that have it) or bfloat16: see models.precision
            COMPILE="auto",  # auto: where a long run pays for it; always; never
            ALLOW_INPLACE_SUM=True,
            ALLOW_INPLACE_RELU=True,
            ALLOW_INPLACE_RESHAPE=True,
            MEMONGER=True,
            SAMPLE_THREADS=8,
        ),
        RESNETS=AttrDict(
            NUM_GROUPS=1,
            WIDTH_PER_GROUP=64,
            STRIDE_1X1=False,
            TRANS_FUNC="bottleneck_transformation",  # or bottleneck_transformation_3d: the same
        ),
        TEST=AttrDict(
            PARAMS_FILE="",  # weights to test
            DATA_TYPE="",  # name of the split under DATADIR
            BATCH_SIZE=64,
            TEN_CROP=False,  # refused
            SCALE=256,  # short side, pixels
            CROP_SIZE=224,
            OUTPUT_NAME="pred",  # what is summed over the clips: pred (scores) or softmax (probabilities)
            TEST_FULLY_CONV=False,  # three crops of TRAIN.JITTER_SCALES[0]
            TEST_FULLY_CONV_FLIP=False,  # six: the same and their mirror images
            TEST_FULL_SIZE=False,  # no crop: whole frames of short side SCALE in one pass, as the paper tests
            GLOBAL_AVE=False,
            DATASET_SIZE=19761,  # number of test videos
            VIDEO_LENGTH=32,
            SAMPLE_RATE=2,
            NUM_TEST_CLIPS=10,  # clips x crops per video
            USE_MULTI_CROP=0,  # 1 three crops, 2 six crops; set by the test tool
        ),
        SOLVER=AttrDict(
            NESTEROV=True,
            WEIGHT_DECAY=0.0001,
            WEIGHT_DECAY_BN=0.0001,  # of parameters with _bn in their name
            MOMENTUM=0.9,
            LR_POLICY="steps_with_relative_lrs",
            BASE_LR=0.1,
            STEP_SIZES=[150150, 150150, 150150],  # iterations of each step
            LRS=[1, 0.1, 0.01],  # rate of each step, relative to BASE_LR under steps_with_relative_lrs
            MAX_ITER=500500,
            STEPS=None,  # first iteration of each step; None: the running sum of STEP_SIZES
            STEP_SIZE=1,  # of the policy `step`
            GAMMA=0.1,  # of the policies `step` and `steps_with_decay`
            SCALE_MOMENTUM=False,  # scale the update history when the rate changes
            WARMUP=AttrDict(
                WARMUP_ON=False,
                WARMUP_START_LR=0.1,
                WARMUP_END_ITER=25025,
            ),
        ),
        CHECKPOINT=AttrDict(
            DIR=".",  # files go to DIR/checkpoints
            RESUME=True,  # go on from the newest checkpoint in DIR
            CHECKPOINT_PERIOD=-1,  # iterations between checkpoints; <= 0: only at the last
            KEEP_LAST=0,  # delete all but the last so many checkpoints; 0: keep all
            CHECKPOINT_MODEL=True,
        ),
        NONLOCAL=AttrDict(
            CONV3_NONLOCAL=True,  # blocks in res3
            CONV4_NONLOCAL=True,  # blocks in res4
            LAYER_MOD=2,  # a block after every so many residual blocks
            AFTER=[],  # residual blocks that a non-local block follows, e.g. ['res4_4']; empty: as the three above say
            USE_SOFTMAX=True,  # False: dot product, divided by the number of positions
            AFFINITY="",  # gaussian, embedded_gaussian, dot_product or concatenation; empty: as USE_SOFTMAX says
            REACH="spacetime",  # or space, or time: which positions a position takes in
            USE_SCALE=True,
            USE_MAXPOOL=True,
            USE_ZERO_INIT_CONV=False,
            CONV_INIT_STD=0.01,
            NO_BIAS=0,  # 1: the four convolutions have no bias
            USE_BN=True,
            USE_AFFINE=False,
            BN_MOMENTUM=0.9,
            BN_EPSILON=1.0000001e-5,
            BN_INIT_GAMMA=0.0,
        ),
        METRICS=AttrDict(
            EVAL_FIRST_N=False,  # also evaluate on the first FIRST_N classes
            FIRST_N=1000,
        ),
    )


# Accepted, so that old files and command lines keep working, but nothing here reads them.
OPTIONS_WITHOUT_EFFECT = frozenset({
    "CHECKPOINT.CHECKPOINT_MODEL", "CUDNN_WORKSPACE_LIMIT", "DATADIR_TEST_TIME", "DATADIR_TRAIN_TIME",
    "DEBUG", "MODEL.ALLOW_INPLACE_RELU", "MODEL.ALLOW_INPLACE_RESHAPE", "MODEL.ALLOW_INPLACE_SUM",
    "MODEL.MEMONGER", "MODEL.SAMPLE_THREADS", "OUTPUT_DIR", "PROF_DAG", "RESNETS.STRIDE_1X1",
    "TEST.CROP_SIZE", "TEST.GLOBAL_AVE", "TEST.SAMPLE_RATE", "TEST.VIDEO_LENGTH", "TRAIN.MEM_CACHE",
})
