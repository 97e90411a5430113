"""The sections of a report; one that has no data says which command makes it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import yaml

from lewm.errors import Error
from lewm.report import html
from lewm.report.curves import training_curves
from lewm.report.sources import Sources, read_json

__all__ = ["header", "sections"]

_BASELINE = "#9aa5b1"
_RESULTS_PICTURES = (
    (
        "plans.png",
        "Plans, carried out: real frames from start to end, and the goal that was shown.",
    ),
    ("episodes.gif", "The same tasks as a film, each beneath its goal."),
    ("episodes.png", "Start, goal and end of the first strict tasks."),
)


def header(sources: Sources) -> str:
    """Title and the figures that matter."""
    env = ""
    for path in sources.evaluations[:1]:
        with _naming(path):
            env = _field(path, "settings").get("env", "")
    return (
        f"<h1>{escape(sources.title)}</h1>\n"
        + html.paragraph(f"lewm report{f' · {env}' if env else ''}", "soft")
        + html.tiles(_glance(sources))
    )


def sections(sources: Sources) -> Iterator[tuple[str, str, str]]:
    """(anchor, title, content) of every section."""
    yield "success", "Success", _success(sources)
    yield "training", "Training", _training(sources)
    yield "probes", "Probes", _probes(sources)
    yield "latents", "Latent space", _latents(sources)
    yield "surprise", "Surprise", _surprise(sources)
    yield "decoded", "Imagined rollouts, decoded", _decoded(sources)
    yield "configuration", "Configuration", _configuration(sources)
    yield "commands", "Commands", _commands(sources)


def _glance(sources: Sources) -> list[tuple[str, str]]:
    values = []
    for path in sources.evaluations[:1]:
        with _naming(path):
            values += _success_at_a_glance(path)
    if sources.metrics:
        last = sources.metrics[-1]
        values.append((f"{last['step']:,.0f}", "optimiser steps"))
        values.append((f"{last['seconds'] / 60:.1f} min", "of training"))
        ranks = [row["effective_rank"] for row in sources.metrics if "effective_rank" in row]
        if ranks:
            sizes = sources.config.get("model")
            width = sizes.get("latent_dim", "?") if isinstance(sizes, dict) else "?"
            values.append((f"{ranks[-1]:.1f} of {width}", "effective rank of the latents"))
    return values


def _success_at_a_glance(path: Path) -> list[tuple[str, str]]:
    values = []
    strict, paper = (_field(path, "results", protocol) for protocol in ("strict", "paper"))
    for agent in strict:
        if agent == "random":
            continue
        whose = "" if agent == "model" else f" of {agent}"
        for protocol, rates in (("strict", strict), ("paper", paper)):
            rate = rates[agent]
            values.append(
                (f"{100 * rate['rate']:.1f}%", f"success{whose}, {protocol} ({rate['trials']} tasks)")
            )
    if "random" in strict:
        values.append((f"{100 * strict['random']['rate']:.1f}%", "random actions, strict"))
    return values


# ---- success -------------------------------------------------------------------------------------------------------


def _success(sources: Sources) -> str:
    if not sources.evaluations:
        return _missing(sources, "eval", "No evaluation yet. This makes it:")
    parts = [
        html.paragraph(
            "Rates with 95% Wilson intervals. strict leaves out tasks whose start already counts as the goal; paper "
            "takes tasks as drawn; random are uniform actions on the same tasks.",
            "soft",
        )
    ]
    for path in sources.evaluations:
        with _naming(path):
            parts.append(_evaluation(sources, path))
    return "\n".join(parts)


def _evaluation(sources: Sources, path: Path) -> str:
    settings, results = _field(path, "settings"), _field(path, "results")
    rows = []
    for protocol in ("strict", "paper"):
        for agent, rate in results[protocol].items():
            low, high = rate["interval_95"]
            spread = (
                ""
                if rate["seed_std"] is None
                else f"{100 * rate['seed_mean']:.1f} ± {100 * rate['seed_std']:.1f}"
            )
            rows.append(
                [
                    protocol,
                    agent,
                    f"{100 * rate['rate']:.1f}%",
                    html.interval_bar(rate["rate"], low, high, *([_BASELINE] if agent == "random" else [])),
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    f"{rate['successes']}/{rate['trials']}",
                    spread,
                ]
            )
    head = ["protocol", "agent", "success", "", "95% interval", "tasks", "seeds: mean ± std"]
    if len(settings["seeds"]) == 1:
        head, rows = head[:-1], [row[:-1] for row in rows]
    facts = (
        f"{settings['env']}, goals {settings['goal_offset']} steps away, {settings['budget']} steps to reach them, "
        f"{len(settings['seeds'])} seed(s). {_planner_words(settings)}"
    )
    names = dict(_RESULTS_PICTURES)
    if (path.parent / "plans.png").is_file():
        names.pop("episodes.png")  # shows starts and goals as well
    pictures = [
        html.image_file(path.parent / name, caption)
        for name, caption in names.items()
        if (path.parent / name).is_file()
    ]
    title = f"<h3>{escape(_relative(sources, path.parent))}</h3>" if len(sources.evaluations) > 1 else ""
    return "\n".join([title, html.table(head, rows, numbers=(2, 4, 5, 6)), html.paragraph(facts), *pictures])


def _planner_words(settings: dict[str, Any]) -> str:
    if "planner" not in settings:
        return "Actions of a cloned policy." if settings.get("agent") == "gcbc" else ""
    planner = settings["planner"]
    words = [
        f"{name} {planner[name]}"
        for name in ("samples", "elites", "iterations", "horizon")
        if name in planner
    ]
    return (
        f"Planner: {planner.get('method', '')}, {', '.join(words)}; {settings['replan_every']} block(s) executed of "
        f"each plan, {settings['context']} frame(s) shown, {settings['precision']}."
    )


# ---- training, latents ---------------------------------------------------------------------------------------------


def _training(sources: Sources) -> str:
    if not sources.metrics:
        return html.missing(
            "No training log here. This makes it:",
            f"lewm train preset=tiny data=DATA.h5 out={sources.folder}",
        )
    last = sources.metrics[-1]
    objective = sources.config.get("objective", "lewm")
    text = (
        f"{last['step']:,.0f} steps, {last['epoch']:.1f} passes over the training windows, objective {objective}. "
        "Validation is on episodes that were held out."
    )
    return html.paragraph(text) + html.svg_image(
        training_curves(sources.metrics), "Training, over its steps."
    )


def _latents(sources: Sources) -> str:
    if not sources.probes:
        return _missing(sources, "probe", "lewm probe draws it as well:")
    parts = []
    for path in sources.probes:
        with _naming(path):
            geometry = _field(path, "geometry")
            text = (
                f"Effective rank {geometry['effective_rank']:.1f} of {geometry['latent_dim']}; temporal straightness "
                f"(mean cosine of consecutive latent velocities) {geometry['straightness']:.3f}."
            )
        parts.append(html.paragraph(text))
        picture = path.parent / "latents.png"
        if picture.is_file():
            parts.append(
                html.image_file(
                    picture, "The leading two principal components, coloured by recorded quantities."
                )
            )
    return "\n".join(parts)


# ---- probes, surprise, decoder -------------------------------------------------------------------------------------


def _probes(sources: Sources) -> str:
    if not sources.probes:
        return _missing(sources, "probe", "No probes yet. This makes them:")
    parts = [
        html.paragraph(
            "Regressors from frozen latents to standardised quantities: mean squared error on held-out episodes (1 is "
            "what the mean would score) and Pearson's r. Controls: an encoder with random weights, and principal "
            "components of the raw pixels.",
            "soft",
        )
    ]
    for path in sources.probes:
        with _naming(path):
            parts.append(_scores(path))
    return "\n".join(parts)


def _scores(path: Path) -> str:
    scores: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for score in _field(path, "scores"):
        scores.setdefault((score["target"], score["regressor"]), {})[score["features"]] = score
    labels = list(dict.fromkeys(label for row in scores.values() for label in row))
    rows = []
    for (target, regressor), row in scores.items():
        cells = [_score(row.get(label)) for label in labels]
        rows.append([target, regressor, *cells])
    return html.table(["quantity", "probe", *labels], rows)


def _score(score: dict[str, Any] | None) -> str:
    return "" if score is None else f"{score['mse']:.3f} ± {score['mse_std']:.3f}, r {score['r']:.3f}"


def _surprise(sources: Sources) -> str:
    if not sources.surprises:
        return _missing(sources, "surprise", "No surprise test yet. This makes it:")
    parts = []
    for path in sources.surprises:
        with _naming(path):
            rows = [
                [
                    test["kind"],
                    str(test["pairs"]),
                    f"{test['mean_difference']:.4g}",
                    f"{test['t']:.2f}",
                    f"{test['p']:.2g}",
                    f"{test['effect_size']:.2f}",
                    "yes" if test["significant"] else "no",
                ]
                for test in _field(path, "tests")
            ]
            head = ["perturbation", "pairs", "difference", "t", "p", "effect size d", "p < 0.01"]
            parts.append(html.table(head, rows, numbers=range(1, 6)))
        picture = path.parent / "surprise.png"
        if picture.is_file():
            note = "Error of the predicted next latent, mean and standard error; the line marks the perturbation."
            parts.append(html.image_file(picture, note))
    return "\n".join(parts)


def _decoded(sources: Sources) -> str:
    if not sources.decoded:
        return _missing(sources, "decode", "Nothing decoded yet. This does it:")
    note = (
        "Real frames, frames decoded from their latents, and from latents imagined from the first frame on."
    )
    return "\n".join(html.image_file(path, note) for path in sources.decoded)


# ---- how it was made -----------------------------------------------------------------------------------------------


def _configuration(sources: Sources) -> str:
    parts = []
    if sources.config:
        parts.append(
            html.details("Training settings", html.code(yaml.safe_dump(sources.config, sort_keys=False)))
        )
    for path in sources.evaluations:
        text = yaml.safe_dump(_field(path, "settings"), sort_keys=False)
        parts.append(html.details(f"Evaluation settings: {_relative(sources, path)}", html.code(text)))
    return "\n".join(parts) or html.paragraph("No settings were recorded.", "soft")


def _commands(sources: Sources) -> str:
    if not sources.commands:
        return html.paragraph(
            "The results here were made from Python, or before commands were recorded.", "soft"
        )
    return html.paragraph("What was run, as it was typed:") + html.code("\n".join(sources.commands))


def _missing(sources: Sources, name: str, text: str) -> str:
    """What is missing, with the command that would make it if there is one."""
    clones = _clones(sources)
    if (clones and name == "eval") or (not clones and not sources.config.get("encoder")):
        return html.missing(text, _command(sources, name))
    return html.paragraph(
        f"lewm {name} reads deployment files, and this model fits in none. lewm.training.load_trained opens it.",
        "soft",
    )


def _clones(sources: Sources) -> bool:
    return bool(sources.config.get("objective") == "gcbc")


def _command(sources: Sources, name: str) -> str:
    """The command that would make what is missing."""
    folder, model, data = sources.folder, sources.model_file, sources.data_file
    evaluated = [sources.training, data, "--agent", "gcbc"] if _clones(sources) else [model, data]
    env = next((_field(path, "settings", "env") for path in sources.evaluations), "ENV")
    words = {
        "eval": ["eval", *evaluated, "--out", folder / "eval"],
        "probe": ["probe", model, data, "--out", folder / "probe"],
        "surprise": ["surprise", model, env, "--out", folder / "surprise"],
        "decode": ["decode", model, data, "--out", folder / "decoded.png"],
    }[name]
    return shlex.join(["lewm", *map(str, words)])


def _relative(sources: Sources, path: Path) -> str:
    return str(path.relative_to(sources.folder))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Raises lewm.Error naming the file, where its results turn out not to be of the form that lewm writes."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Error(f"{path}: not results as lewm writes them ({error!r})") from error


def _field(path: Path, *names: str) -> Any:
    """A value in a file of results. Raises lewm.Error if it is not there."""
    value: Any = read_json(path)
    for name in names:
        if not isinstance(value, dict) or name not in value:
            raise Error(f"{path}: expected {'.'.join(names)}, found none")
        value = value[name]
    return value
