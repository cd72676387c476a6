"""A network with its weights, ready to predict."""

from models.model_builder_video import create_model
from utils.checkpoints import initialize_params_from_file


def load_model(cfg, weights_file, device):
    """The network of a configuration with the weights of a file, in inference mode on a device.

    Args:
        cfg: configuration; TEST.OUTPUT_NAME says what comes out, `softmax` (probabilities) or `pred` (scores).
        weights_file: a checkpoint or converted file.
        device: torch.device.

    Returns:
        A ResNetVideo. Called with clips N x 3 x T x H x W (float32, normalised) it returns N x NUM_CLASSES.

    Raises:
        UserError: options or weights that do not fit.
    """
    model = create_model(cfg, "test").to(device)
    model.output = cfg.TEST.OUTPUT_NAME
    initialize_params_from_file(model, weights_file, complete=True)
    return model
