"""Executed notebooks are normalised: equal stays equal, different stays different, and twice is once."""

import re
from datetime import UTC, datetime

import nbformat
import pytest

from tools.normalise_notebooks import dump, normalise
from tools.stand_ins import START, StandIns

BEGAN = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
ONE, OTHER = "ab12" * 16, "cd34" * 16
BODY = "MII" + "Ab3/" * 20


def written(text, literal=None, began=BEGAN):
    stand_ins = StandIns(began, literal or {})
    return stand_ins.write(stand_ins.learn(text))


CHANGED = [
    ("2031-05-06T07:08:30Z", "2026-01-15T09:00:00Z"),
    ("2031-05-06T07:08:40.123456+00:00", "2026-01-15T09:01:00+00:00"),
    ("2031-08-04 07:08:12Z", "2026-04-15 09:00:00Z"),
    ("Tue, 06 May 2031 07:08:10 GMT", "Thu, 15 Jan 2026 09:00:00 GMT"),
    ("May  6 07:08:10 2031 GMT", "Jan 15 09:00:00 2026 GMT"),
    ("RSA; valid 2031-05-06 to 2031-08-04</div>", "RSA; valid 2026-01-15 to 2026-04-15</div>"),
    ("https://localhost:28321/graphql", "https://localhost:4431/graphql"),
    ("https://127.0.0.1:28321 https://[::1]:28322", "https://127.0.0.1:4431 https://[::1]:4432"),
    ("held by process 123 on host", "held by process 4711 on host"),
    ("made in 1.73 s", "made in 0.5 s"),
    ("our clock is 1 s behind, <td>-1 s</td>", "our clock is 0 s ahead, <td>0 s</td>"),
    ("less 15 h 21 min of jitter", "less 2 d 6 h of jitter"),
    ("89 d 23 h left", "90 d left"),
    ("(90 d left)       2026", "(90 d left)  2026"),
    ("/var/a/home/connections", "~/.ucl/connections"),
    ("answer-failed-300cc3c8.json", "answer-failed-5c1fa20e.json"),
    ("in /var/b/T/ucl-fault-lab-x3_a9k2q/connections", "in …/ucl-fault-lab/connections"),
]
KEPT = [
    *("4096 bits", "90 d 0 h", "port 28321", "20260115", "deadbeef", "cafe", "1.73 seconds", "30 s", "1 d 23 h"),
    *("LS0tLS1CRUdJTi", "UCL", "asks to slow down (429). Try 2 in 2.0 s.", "…/ucl-fault-lab/connections"),
]


@pytest.mark.parametrize(("original", "shown"), CHANGED)
def test_what_changes_with_every_run_is_replaced(original, shown):
    assert written(original, {"/var/a": "~", "/var/a/home": "~/.ucl"}) == shown


@pytest.mark.parametrize("text", KEPT)
def test_what_does_not_is_kept(text):
    assert written(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE} {OTHER} {ONE}",
        f"{ONE[:40]}\n{ONE[:32]}",
        ":".join(["AB", "12"] * 16),
        "000007-ab12ab12ab12 then 000008-ef56ef56ef56",
        "6f9619ff-8b86-4011-b42d-00c04fc964ff",
        f"-----BEGIN CERTIFICATE-----\n{BODY}\nAb3=\n-----END CERTIFICATE-----",
        f"-----BEGIN CERTIFICATE REQUEST-----\\n{BODY}\\nAb3=\\n-----END CERTIFICATE REQUEST-----",
        f"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t{BODY}==",
    ],
)
def test_bytes_and_identifiers_get_another_value_of_the_same_form(text):
    shown = written(text)
    assert shown != text
    form = re.compile(r"[0-9a-fA-F]") if "BEGIN" not in text and "LS0t" not in text else re.compile(r"[0-9A-Za-z+/]")
    assert form.sub("x", shown) == form.sub("x", text)
    assert written(shown) == shown


def test_equal_stays_equal_and_different_stays_different():
    one, other, again = written(f"{ONE} {OTHER} {ONE}").split()
    assert (one == again, one == other) == (True, False)


def test_a_short_form_follows_its_long_form_even_when_it_comes_first():
    short, generation, long, colons = written(
        f"{ONE[:12]} 000001-{ONE[:6]} {ONE} {':'.join(['AB', '12'] * 16)}"
    ).split()
    assert (short, generation, colons) == (long[:12], f"000001-{long[:6]}", re.sub("(..)(?=.)", r"\1:", long).upper())


def test_a_short_form_in_an_earlier_cell_is_that_of_its_long_form():
    stand_ins = StandIns(BEGAN, {})
    texts = [stand_ins.learn(text) for text in (f"000001-{ONE[:12]}", f"{OTHER} {ONE}")]
    generation, longs = map(stand_ins.write, texts)
    other, one = longs.split()
    assert generation == f"000001-{one[:12]}"
    assert one != other


def test_two_runs_give_the_same():
    text = "{} from {} at https://localhost:{} in {} s"
    first = written(text.format(ONE, "2031-05-06 07:08:11Z", 28321, "0.91"))
    second = written(
        text.format(OTHER, "2031-06-01 10:00:02Z", 28777, "1.2"), began=datetime(2031, 6, 1, 10, tzinfo=UTC)
    )
    assert first == second
    assert first != written(text.format(ONE, "2031-05-06 08:08:11Z", 28321, "0.91"))


def test_moments_of_a_notebook_that_was_normalised_before_stay():
    text = f"{START:%Y-%m-%d %H:%M:%S}Z 2031-05-06T07:08:30Z"
    assert written(text, began=None) == text


def notebook():
    papermill = {"start_time": BEGAN.isoformat()}
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="one "),
        nbformat.v4.new_output("stream", name="stdout", text=f"{ONE}\n"),
        nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}),
        nbformat.v4.new_output("display_data", {"text/plain": ONE[:8], "image/png": ONE}),
        nbformat.v4.new_output(
            "execute_result", {"application/json": {"at": ["2031-05-06T07:08:09Z"]}}, execution_count=9
        ),
    ]
    cell = nbformat.v4.new_code_cell(f"'{ONE}'", outputs=outputs, execution_count=9, metadata={"papermill": papermill})
    cell.id, cell.metadata.tags = "code", []
    text = nbformat.v4.new_markdown_cell("# Title", metadata={"tags": ["kept"], "papermill": papermill})
    text.id = "prose"
    metadata = {"papermill": papermill, "widgets": {"x": 1}, "kernelspec": {"name": "other", "display_name": "Other"}}
    return nbformat.v4.new_notebook(cells=[text, cell], metadata=metadata)


def test_a_notebook_keeps_its_sources_and_loses_what_is_of_one_run():
    before = notebook()
    result = normalise(before)
    prose, code = result["cells"]
    long, short = code["outputs"][0]["text"], code["outputs"][1]["data"]
    assert (code["source"], code["execution_count"], code["metadata"]) == (f"'{ONE}'", 1, {})
    assert (prose["source"], prose["metadata"]) == ("# Title", {"tags": ["kept"]})
    assert [output["output_type"] for output in code["outputs"]] == ["stream", "display_data", "execute_result"]
    assert (ONE in long, long[4:12], short["image/png"]) == (False, short["text/plain"], ONE)
    assert code["outputs"][2]["data"] == {"application/json": {"at": ["2026-01-15T09:00:00Z"]}}
    assert code["outputs"][2]["execution_count"] == 1
    assert result["metadata"].keys() == {"kernelspec", "language_info"}
    assert before == notebook()


def test_normalising_twice_gives_the_same_file():
    once = dump(normalise(notebook()))
    assert dump(normalise(nbformat.reads(once, as_version=4))) == once
    assert once != dump(notebook())
