"""Gymnasium environments of speculative decoding; importing this registers them."""

import gymnasium

gymnasium.register(
    "SpecDecode-v0",
    entry_point="envs.live:SpecDecodeEnv",
    vector_entry_point="envs.live:SpecDecodeVectorEnv",
    nondeterministic=True,  # rewards are measured seconds
)

gymnasium.register(
    "SpecDecodeReplay-v0",
    entry_point="envs.replay:ReplayEnv",
    vector_entry_point="envs.replay:ReplayVectorEnv",
    nondeterministic=True,  # rewards follow the running rate
)
