"""Loads the harness's plugin, once for the whole session."""

from harness import plugin


def pytest_configure(config):
    """The plugin's own pytest_configure follows from this."""
    if not config.pluginmanager.is_registered(plugin):
        config.pluginmanager.register(plugin, "harness.plugin")
