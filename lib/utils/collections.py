"""A dict whose keys are attributes too."""


class AttrDict(dict):
    """A dict with `d.KEY` for `d["KEY"]`. Copies (deeply), pickles, compares and prints as a dict."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value

    def __delattr__(self, name):
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None
