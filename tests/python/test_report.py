"""The HTML report stands alone, shows what there is, and says what would make the rest."""

from __future__ import annotations

import json
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

for module in ("torch", "h5py", "matplotlib", "imageio", "yaml"):
    pytest.importorskip(module)

import imageio.v3 as imageio

import lewm
from lewm.cli import main
from lewm.report import write_html
from lewm.report.html import interval_bar, table
from train_helpers import write_episodes, write_settings

RATE = {
    "successes": 30,
    "trials": 40,
    "rate": 0.75,
    "interval_95": [0.6, 0.86],
    "seed_mean": 0.75,
    "seed_std": None,
}
SETTINGS = {
    "env": "lewm/TwoRoom-v0",
    "goal_offset": 25,
    "budget": 50,
    "seeds": [0],
    "planner": {"method": "icem", "samples": 123},
    "replan_every": 5,
    "context": 1,
    "precision": "fp32",
    "command_line": "lewm eval 'a model' data.h5",
}


class Page(HTMLParser):
    """What a page refers to, and whether its tags are balanced."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            {"src": self.sources, "href": self.links, "id": self.ids}.get(name, []).append(value)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder with results of every command."""
    folder = tmp_path / "a <run>"
    for name in ("run", "eval", "probe", "surprise"):
        (folder / name).mkdir(parents=True)
    rows = ["step,epoch,seconds,lr,loss,pred_loss,sigreg_loss,grad_norm,val_loss,effective_rank"]
    for step in range(1, 6):
        validation = "0.2,9.5" if step % 2 else ","
        rows.append(f"{step},0.5,{step},1e-3,{1 / step},0.1,2,0.4,{validation}")
    (folder / "run" / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "run" / "config.yaml").write_text("objective: lewm\nmodel:\n  latent_dim: 128\n")
    results = {protocol: {"model": RATE, "random": {**RATE, "rate": 0.1}} for protocol in ("paper", "strict")}
    (folder / "eval" / "results.json").write_text(json.dumps({"settings": SETTINGS, "results": results}))
    score = {"target": "agent[0]", "regressor": "linear", "features": "latents"}
    score |= {"mse": 0.012, "mse_std": 0.003, "r": 0.987}
    geometry = {"straightness": 0.4, "effective_rank": 7.25, "latent_dim": 128}
    (folder / "probe" / "probe.json").write_text(
        json.dumps(
            {"settings": {}, "geometry": geometry, "scores": [score, {**score, "features": "random weights"}]}
        )
    )
    test = {"kind": "teleport", "pairs": 20, "mean_difference": 0.5, "t": 9.1, "p": 1e-8}
    test |= {"effect_size": 2.0, "significant": True}
    (folder / "surprise" / "surprise.json").write_text(json.dumps({"settings": {}, "tests": [test]}))
    picture = np.zeros((4, 4, 3), np.uint8)
    for name in (
        "eval/plans.png",
        "eval/episodes.gif",
        "probe/latents.png",
        "surprise/surprise.png",
        "decoded.png",
    ):
        imageio.imwrite(folder / name, picture)
    return folder


def test_a_report_stands_alone_and_shows_everything(run):
    page = Page(write_html(run).read_text())
    assert not page.open and not page.tags & {"script", "link", "iframe", "object"}
    assert len(page.sources) == 6, "five pictures and the training curves"
    assert all(re.match(r"data:image/(png|gif|svg\+xml);base64,", source) for source in page.sources)
    assert page.links == [f"#{anchor}" for anchor in page.ids]
    for shown in (
        "a <run>",
        "75.0%",
        "30/40",
        "icem",
        "samples 123",
        "0.012 ± 0.003, r 0.987",
        "teleport",
        "1e-08",
    ):
        assert shown in page.text, shown
    assert "9.5 of 128" in page.text and "lewm eval 'a model' data.h5" in page.text
    assert "This makes" not in page.text and "This does" not in page.text


def test_a_run_that_is_only_trained_says_what_would_make_the_rest(run, capsys):
    for name in ("eval/results.json", "probe/probe.json", "surprise/surprise.json", "decoded.png"):
        (run / name).unlink()
    assert main(["report", str(run), "--out", str(run / "other.html")]) == 0
    assert capsys.readouterr().out.strip() == str(run / "other.html")
    text = Page((run / "other.html").read_text()).text
    for command in ("eval", "probe", "surprise", "decode"):
        assert f"lewm {command} " in text
    assert f"--out '{run / 'eval'}'" in text


@pytest.mark.parametrize("setting", ["objective: gcbc", "encoder: some:factory"])
def test_commands_that_a_model_does_not_fit_are_not_named(run, setting):
    for name in ("eval/results.json", "probe/probe.json", "surprise/surprise.json", "decoded.png"):
        (run / name).unlink()
    (run / "run" / "config.yaml").write_text(setting + "\n")
    text = Page(write_html(run).read_text()).text
    assert text.count("this model fits in none") == (4 if "gcbc" in setting else 5)
    assert (f"lewm eval '{run / 'run'}' DATA.h5 --agent gcbc" in text) == ("gcbc" in setting)


def test_agents_of_any_name_are_shown(run):
    results = {protocol: {"mine": RATE, "other": {**RATE, "rate": 0.25}} for protocol in ("paper", "strict")}
    settings = {name: value for name, value in SETTINGS.items() if name != "planner"}
    (run / "eval" / "results.json").write_text(json.dumps({"settings": settings, "results": results}))
    text = Page(write_html(run).read_text()).text
    assert "success of mine, strict (40 tasks)" in text and "success of other, paper (40 tasks)" in text
    assert "cloned policy" not in text and "random actions, strict" not in text


def test_two_evaluations_are_told_apart(run):
    (run / "far").mkdir()
    (run / "far" / "results.json").write_text((run / "eval" / "results.json").read_text())
    titles = re.findall(r"<h3>(.*?)</h3>", write_html(run).read_text())
    assert titles == ["eval", "far"]


def test_what_cannot_be_reported_is_named(run, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_html(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 1
    assert "expected results of lewm train" in capsys.readouterr().err
    (run / "eval" / "results.json").write_text('{"settings": {}')
    with pytest.raises(lewm.Error, match=r"results.json: not readable as JSON"):
        write_html(run)
    (run / "eval" / "results.json").write_text('{"settings": {}}')
    with pytest.raises(lewm.Error, match=r"results.json: expected results"):
        write_html(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run/metrics.csv", "step,loss\n1,0.5\n"),
        ("run/metrics.csv", "step,loss\n1,low\n"),
        ("eval/results.json", '{"settings": 3}'),
        ("eval/results.json", '{"settings": {}, "results": {"strict": {"model": 1}, "paper": {}}}'),
        ("eval/results.json", '{"settings": {}, "results": {"strict": {}, "paper": {}}}'),
        ("probe/probe.json", '{"scores": [{}]}'),
        ("probe/probe.json", '{"scores": [], "geometry": []}'),
        ("surprise/surprise.json", '{"tests": [3]}'),
    ],
)
def test_results_of_another_form_are_named(run, name, content, capsys):
    (run / name).write_text(content)
    assert main(["report", str(run)]) == 1
    assert capsys.readouterr().err.startswith(f"lewm report: {run / name}: ")


def test_the_page_does_not_replace_results(run, tmp_path, capsys):
    for out in (tmp_path / "other.html", run / "page.html", run / "page.html"):
        assert main(["report", str(run), "--out", str(out)]) == 0
    metrics = run / "run" / "metrics.csv"
    before = metrics.read_bytes()
    assert main(["report", str(run), "--out", str(metrics)]) == 1
    assert "--out: " in capsys.readouterr().err
    assert metrics.read_bytes() == before


def test_text_is_escaped_and_bars_are_to_scale():
    assert "<b>" not in table(["<b>"], [["<b>"]])
    assert "<svg" not in table(["a"], [["<svg onload=alert(1)>"]])
    assert "<svg" in table(["a"], [[interval_bar(0.5, 0.25, 0.75)]])
    bar = interval_bar(0.5, 0.25, 0.75)
    assert 'rect width="120.0"' in bar and "M60.0 9H180.0" in bar


def test_trainings_remember_their_commands(tmp_path):
    data, run = write_episodes(tmp_path / "data.h5"), tmp_path / "run"
    settings = write_settings(tmp_path / "settings.yaml", data=str(data), steps=2)
    first = ["train", str(settings), "--objective", "none", f"out={run}"]
    assert main(first) == 0
    assert main(["train", "--resume", str(run), "steps=3"]) == 0
    assert main(["train", str(settings), f"out={tmp_path / 'other'}", "batch_size=0"]) == 1
    assert not (tmp_path / "other").exists(), "a refused command left a folder"
    page = Page(write_html(run).read_text())
    assert shlex.join(["lewm", *first]) in page.text and f"lewm train --resume {run} steps=3" in page.text
    assert "objective none" in page.text


def test_a_run_whose_name_is_not_text_is_trained_and_reported(tmp_path, capfd):
    """Names of files are bytes: in Latin-1, for one."""
    run = tmp_path / os.fsdecode(b"mod\xe8le")
    settings = write_settings(
        tmp_path / "settings.yaml", data=str(write_episodes(tmp_path / "data.h5")), steps=2
    )
    assert main(["train", str(settings), f"out={run}", "tensorboard=true"]) == 1
    assert "tensorboard=false" in capfd.readouterr().err and not run.exists()
    assert main(["train", str(settings), f"out={run}"]) == 0
    assert main(["train", "--resume", str(run), "steps=3"]) == 0
    assert "mod\ufffdle' steps=3" in Page(write_html(run).read_text()).text
