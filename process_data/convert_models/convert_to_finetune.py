"""The steps that the conversion scripts share: functions from blobs to blobs, and the command line."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import _init_paths  # noqa: F401, I001  (lib/ on the path, a Python that is new enough)

import numpy as np

from formats.blobs import NUMBERS, load_blobs  # noqa: E402
from formats.caffe2_pickle import dump  # noqa: E402
from utils import cli  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import make_folder  # noqa: E402

BN_EPSILON = 1e-5


def remove_non_parameters(blobs):
    """Without the state of a training run: epoch, model_iter, lr."""
    return {name: value for name, value in blobs.items() if name not in NUMBERS}


def remove_momentum(blobs):
    """Without the update histories."""
    return remove_named(blobs, "_momentum")


def remove_named(blobs, *parts):
    """Without the blobs that have one of `parts` in their name."""
    return {name: value for name, value in blobs.items() if not any(part in name for part in parts)}


def bn_to_affine(blobs):
    """Every batch norm folded, with its running statistics, into the affine layer y = x * s + b.

    s' = s / sqrt(riv + 1e-5) and b' = b - rm * s / sqrt(riv + 1e-5), in float32; `_rm` and `_riv` (the running
    *variance*) go.

    Raises: UserError if there is no batch norm, or one whose blobs are missing or of different shapes, or
        with a negative variance.
    """
    blobs = dict(blobs)
    variances = [name for name in blobs if name.endswith("_bn_riv")]
    if not variances:
        raise UserError("no batch norm (_bn_riv) in it: is it converted already?")
    for variance_name in variances:
        layer = variance_name.removesuffix("_riv")
        names = [f"{layer}_{part}" for part in ("s", "b", "rm", "riv")]
        for name in names:
            value, shape = blobs.get(name), np.shape(blobs[variance_name])
            if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in "fiu":
                raise UserError(f"{name}: expected numbers of the shape of {variance_name}, {shape}")
        scale, bias, mean, variance = (blobs[name].astype(np.float32, copy=False) for name in names)
        if not np.all(variance >= 0):
            raise UserError(f"{variance_name}: expected variances, got {variance.min()}")
        deviation = np.sqrt(variance + np.float32(BN_EPSILON))
        blobs[f"{layer}_s"] = scale / deviation
        # In this order of operations, and not as mean * (scale / deviation), every bit is that of the Caffe2 program.
        blobs[f"{layer}_b"] = bias - mean * scale / deviation
        del blobs[f"{layer}_rm"], blobs[f"{layer}_riv"]
    return blobs


def convert_file(description, convert):
    """The command line IN OUT of a script: read the checkpoint IN, write the blobs convert(blobs) to OUT.

    OUT is the inner dict alone, without the "blobs" around it; its folder is made.
    """
    parser = cli.argument_parser(description)
    parser.add_argument("input", metavar="IN", help="checkpoint to convert (.pkl)")
    parser.add_argument("output", metavar="OUT", help="file to write (.pkl)")
    args = parser.parse_args()
    blobs = load_blobs(args.input)
    try:
        converted = convert(blobs)
    except UserError as error:
        raise UserError(f"{args.input}: {error}") from error
    make_folder(Path(args.output).parent)
    dump(converted, args.output)
    print(f"{args.output}: {len(converted)} of {len(blobs)} blobs")
