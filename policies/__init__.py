"""Fixed rules, bandits and learned policies in the decoder's seat."""

import policies.rules.export  # noqa: F401  exported rules can be loaded
