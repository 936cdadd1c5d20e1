"""The errors a user can cause. Each text says what is wrong, what was received, and what to do."""


class AuditError(Exception):
    """Base of every error that `gradcam-audit` reports as one sentence, without a traceback."""


class ConfigError(AuditError):
    """An option has a value that cannot be used."""


class DatasetError(AuditError):
    """The images or their labels cannot be audited."""


class ModelError(AuditError):
    """The model cannot be loaded, or cannot be explained."""


class NoSpatialLayerError(ModelError):
    """The model has no layer with height and width that reaches its scores."""


class PlaceError(AuditError):
    """What is behind a URL cannot be reached."""


class ResourceError(AuditError):
    """The machine ran out of disk space or of memory."""


class RunFolderError(AuditError):
    """The run folder cannot be written, read or resumed."""
