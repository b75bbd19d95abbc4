"""README and results say what the committed figures say, and so that GitHub and the site can show it."""

import json
import re
import shutil

import pytest

from saliency_lib.book import arms, claims, lines, profiles, results, seeds
from saliency_lib.book.results import PAPERS_DATA, QUICK
from saliency_lib.runtime.store import PROJECT


def test_readme_and_results_are_up_to_date():
    assert not results.stale() and arms.fresh(PROJECT / "figures"), "call ./run_all.sh publish"


def test_pages_that_differ_are_named_and_written(tmp_path, monkeypatch):
    for path in results.PAGES:
        shutil.copy(path, tmp_path)
    pages = [tmp_path / path.name for path in results.PAGES]
    monkeypatch.setattr(results, "PAGES", pages)
    readme, notebook = tmp_path / "README.md", tmp_path / "04_sweep_architectures.ipynb"
    whole, book = readme.read_text(), notebook.read_text()
    readme.write_text(re.sub(r"(\d) agree", r"\1 differ", whole))
    notebook.write_text(re.sub(r"(\d) \[", "7 [", book, count=1))
    assert results.stale() == [notebook, readme] == results.publish()
    assert results.stale() == [] == results.publish()
    assert readme.read_text() == whole and notebook.read_text() == book


def test_what_is_written_by_hand_stays():
    text = "before <!-- notebooks -->old<!-- end of notebooks --> between <!-- no part --> after"
    made = results.filled(text)
    assert made.startswith("before <!-- notebooks -->") and made.endswith("between <!-- no part --> after")
    assert "old" not in made and results.filled(made) == made
    with pytest.raises(KeyError, match="nonsense"):
        results.filled("<!-- nonsense --><!-- end of nonsense -->")


def test_readme_is_one_page():
    assert len((PROJECT / "README.md").read_bytes()) < 10_000


def test_the_readmes_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.S)
    names: dict = {}
    exec(code, names)
    assert len(capsys.readouterr().out.splitlines()) == 2 and names["maps"].shape == names["images"].shape


def test_links_of_pages_lead_to_files():
    for page in (*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")):
        text = page.read_text()
        for link in re.findall(r"\]\(([^)#]+)\)|(?:src|href)=\"([^\"#]+)\"", text):
            target = "".join(link)
            assert re.match("https?:", target) or (page.parent / target).exists(), f"{page.name} refers to {target}"
        places = set(re.findall(r'id="([^"]+)"', text))
        for place in re.findall(r'href="#([^"]+)"', text):
            assert place in places, f"{page.name} refers to #{place}"


@pytest.mark.parametrize("folder", [QUICK, *PAPERS_DATA], ids=lambda folder: folder.name)
def test_every_verdict_and_figure_is_shown(folder):
    tables, gallery = results.verdicts(folder), results.gallery(folder)
    rows = dict(re.findall(r'(?m)^\| <a id="[\w-]+-([A-Z]\d\d)"></a>(.*) \|$', tables))
    assert list(rows) == list(claims.verdicts(folder)) and tables.count("### ") == len({claim[0] for claim in rows})
    for claim, judged in claims.verdicts(folder).items():
        badge = rows[claim].rpartition("|")[2]
        assert f"{lines.SIGNS[judged['verdict']]} {judged['verdict']}</span>" in badge
        assert ("second reading" in badge) == ("second reading" in judged)
        for quantity in judged["quantities"]:
            assert claims.interval(quantity) in rows[claim].replace("**", ""), claim
        assert rows[claim].count("|") == 3, "four columns"
    pictures = re.findall(rf'<img src="figures/{folder.name}/(\w+).png" width="\d+" alt="([^"]{{40,}})">', gallery)
    assert [name for name, _ in pictures] == sorted(path.stem for path in folder.glob("*.png"))
    assert all(line.count("|") == results.ACROSS + 1 for line in gallery.splitlines())


def test_verdicts_of_other_seeds_are_kept_and_counted(tmp_path):
    assert seeds.verdicts(tmp_path) == {}
    verdict = {"claim": "W01", "verdict": "agrees", "remark": "", "quantities": []}
    made = {"id": "02_x", "numbers": {"n": 1}, "verdicts": [verdict], "series": [1] * 99, "provenance": {"seed": 1}}
    for seed, judged in ((0, "agrees"), (1, "cannot tell"), (2, "agrees")):
        folder = tmp_path if seed == 0 else tmp_path / f"run{seed}"
        folder.mkdir(exist_ok=True)
        verdict["verdict"] = judged
        (folder / "02_x.json").write_text(json.dumps(made))
        if seed:
            assert seeds.keep(folder, tmp_path, seed) == 1
    kept = json.loads((tmp_path / "seeds" / "1" / "02_x.json").read_text())
    assert "series" not in kept and kept["numbers"] == {"n": 1}
    assert seeds.verdicts(tmp_path) == {"W01": ["agrees", "cannot tell", "agrees"]}
    line = lines.row(tmp_path, verdict | {"figure": "02_x"}, seeds.verdicts(tmp_path)["W01"])
    assert line[-1].endswith("the same with 1 of 2 other seeds")


def test_the_summary_counts_every_claim():
    line = dict(zip(results.PAPERS, results.found().splitlines()[2:]))
    for letter in results.PAPERS:
        *_, here, there, _ = line[letter].split("|")
        for cell, folders in ((here, [QUICK]), (there, PAPERS_DATA)):
            found = [(folder, each) for folder in folders for each in claims.verdicts(folder).values()]
            own = [v for at, v in found if v["claim"] not in results.EMBEDDED.get(at.name, ())]
            judged = [v["verdict"] for v in own if v["claim"][0] == letter]
            counted = [f"{judged.count(v)} {word}" for v, word in lines.WORDS.items() if v in judged]
            assert cell.strip().split("<br>") == (counted or ["not run"])
        assert re.search(r"-?\d[\d.]* \[-?\d[\d.]*, -?\d[\d.]*\]", line[letter])


def test_a_claim_without_a_verdict_fails(tmp_path):
    for path in QUICK.glob("*.json"):
        if not path.name.startswith("02_controls"):
            shutil.copy(path, tmp_path)
    for part in (results.verdicts, results.found):
        with pytest.raises(ValueError, match="claims without a verdict in .*: W06, W07; run their notebooks"):
            part(tmp_path)


def test_runs_on_the_papers_data_are_told_with_what_was_changed(tmp_path):
    made = json.loads((PROJECT / "figures" / "cmnist-resnet9" / "06_sigma.json").read_text())
    (tmp_path / "06_sigma.json").write_text(json.dumps(made))
    table, _, missing = results.overview([tmp_path]).partition("\n\n")
    (row,) = table.splitlines()[2:]
    assert row.startswith(f"| `{tmp_path.name}` | 06 | cmnist (mnist: ")
    assert "n_train=6000" in row and "device" not in row
    assert made["provenance"]["device"] in row and "n_samples" not in row, "what is as usual is left out"
    judged = {verdict["claim"] for verdict in made["verdicts"]}
    assert set(re.findall(r"[A-Z]\d\d", missing)) == set(claims.all_claims()) - judged
    reached = {claim for folder in PAPERS_DATA for claim in claims.verdicts(folder)}
    assert not set(re.findall(r"[A-Z]\d\d", results.overview())) & reached


def test_every_notebook_is_listed_with_its_minutes_and_differences():
    table, differences = results.notebooks(), results.deviations()
    for name in profiles.notebooks():
        assert re.search(rf"\[{name[:2]} .+\]\(notebooks/{name}.ipynb\) \| .* \| \d+ \|", table)
    for number in {row["notebook"] for row in claims.all_claims().values()}:
        part = re.search(rf"(?ms)^### \[{number} .*?\)\n\n(.*?)(?=^### |\Z)", differences)
        assert len(part[1]) > 100


def test_what_holds_by_construction_is_not_counted_as_agreement():
    quantities = [{"verdict": claims.AGREES, "reading": r} for r in (claims.FIRST, claims.IDENTITY)]
    assert lines.counts(quantities, ", ") == "1 agree, 1 hold by construction"
    broken = {"verdict": claims.DIFFERS, "reading": claims.IDENTITY}
    assert lines.counts([broken], ", ") == "1 differ"
