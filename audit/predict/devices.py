"""Load TensorFlow quietly and let GPUs be shared."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("audit")


def prepare_tensorflow() -> None:
    """Import TensorFlow with its start-up notes in the log instead of on the terminal.

    GPUs get memory growth, so that an audit takes what it needs and not the whole card. Without
    one, an operation gets half of the cores, as two go on at once (`side_by_side`); the variable
    TF_NUM_INTRAOP_THREADS goes before. Called again, it does nothing.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _stderr_to_log():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if not gpus and "TF_NUM_INTRAOP_THREADS" not in os.environ:
            tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // 2))
    tf.get_logger().setLevel(logging.ERROR)


@contextmanager
def _stderr_to_log() -> Iterator[None]:
    """Catch what native code writes to stderr; if the block fails, show it after all."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError:  # No room for them anywhere: they are shown.
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with file as caught:
        os.dup2(caught.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            text = caught.read().decode(errors="replace")
            if failed:
                sys.stderr.write(text)
            logger.debug("TensorFlow's start-up notes:\n%s", text)
