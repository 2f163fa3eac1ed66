"""Made-up results of a run, for the tests of reports."""

from __future__ import annotations

import numpy as np

from reports import summarise

TREE = """\
'import'
├── * ' os'  0.812
│   ├── * '\\n'  0.731
│   │   ├──   'from'  0.214
│   │   └── + 'import'
│   └──   '.'  0.034
└──   ' * '  0.061"""
SPEEDS = {  # policy: (tokens/s, nodes per cycle, accepted per cycle, share of time in the policy)
    "autoregressive": (61, 0, 0, 0.0),
    "best-static": (131, 11, 2.3, 0.002),
    "threshold": (127, 9, 2.1, 0.004),
    "opt-tree": (118, 22, 2.7, 0.01),
    "ucb": (129, 10, 2.25, 0.006),
    "dqn": (133, 12, 2.4, 0.021),
    "ppo": (139, 9.5, 2.45, 0.018),
}


def results_of(
    speeds: dict[str, tuple[float, ...]] = SPEEDS,
    domains: tuple[str, ...] = ("code", "prose", "dialogue"),
    prompts: int = 8,
    learned: tuple[str, ...] = ("ucb", "dqn", "ppo"),
) -> dict:
    """Plausible results; policies gain a little more in some domains than in others."""
    random, rows = np.random.default_rng(0), []
    for place, domain in enumerate(domains):
        for number in range(prompts):
            tokens, hard = int(random.integers(90, 129)), random.lognormal(0.1 * place, 0.15)
            text = random.integers(0, 512, tokens).tolist()
            for name, (rate, drafted, accepted, share) in speeds.items():
                seconds = tokens / rate * hard * random.normal(1 + 0.01 * place, 0.02)
                cycles = float(round(tokens / (1 + accepted / hard)))
                parts = {"draft": 0.3 if drafted else 0.0, "decide": share, "commit": 0.06}
                parts["verify"] = 1 - sum(parts.values())
                rows.append(
                    {
                        "policy": name,
                        "prompt_id": f"{domain}/{number}",
                        "domain": domain,
                        "repeat": 0,
                        "new_tokens": tokens,
                        "seconds": seconds,
                        "cycles": cycles,
                        "drafted": float(round(cycles * drafted * random.normal(1, 0.05))),
                        "accepted": tokens - cycles if drafted else 0.0,
                        "output_tokens": list(text),
                        "phases": {key: value * seconds for key, value in parts.items()},
                    }
                )
    settings = {"baseline": "autoregressive", "static": "best-static", "learned": list(learned)}
    settings |= {"pair": "embedded", "temperature": 0.0, "batch_size": 1, "max_new_tokens": 128}
    return {
        "rows": rows,
        "summary": summarise(rows, settings["baseline"], settings["static"], draws=500),
        "machine": {"cpu": "Some CPU @ 2.1 GHz", "torch": "2.11.0", "threads": 1, "commit": "abc"},
        "settings": settings | {"seed": 0},
    }


def with_extras(results: dict, policy: str = "ppo") -> dict:
    """The same with the optional parts."""
    shares = {"plain": [0.5, 0.2, 0.0], "chain 4": [0.4, 0.3, 0.2], "tree 4x16": [0.1, 0.5, 0.8]}
    entries = [
        {"feature": "last accepted share", "bins": [0, 0.25, 0.6, 1], "shares": shares},
        {"feature": "draft entropy", "bins": [0.7, 2.1], "shares": shares},
    ]
    trees = [{"policy": policy, "prompt_id": f"code/{i}", "text": TREE} for i in range(2)]
    leads = {"oracle": 152 / 131, "pooled": 1.0, "by_domain": 1.02, "by_prompt": 1.05}
    oracle = {"tokens_per_second": 152.0, "static": 131.0, "shares": {policy: 0.38}}
    oracle |= {f"lead_{name}": lead for name, lead in leads.items()}
    return results | {"decisions": {policy: entries}, "trees": trees, "oracle": oracle}
