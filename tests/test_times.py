"""How long a run took: rows of text, and where the report finds them."""

from report_fixture import Sizes, write_run

from audit.report.formats import duration
from audit.report.pages import FolderSink
from audit.report.render import ReportOptions, render_report, write_pages
from audit.report.views.times import run_times

SPACE = "\u202f"


def manifest(finished, **seconds):
    stages = {name: {"state": "done", "seconds": value} for name, value in seconds.items()}
    return {"started": "2026-01-02T22:00:00+00:00", "finished": finished, "stages": stages}


def test_times_are_put_as_a_person_would_say_them():
    said = {
        0: "0.0 s",
        0.26: "0.3 s",
        9.94: "9.9 s",
        9.96: "10 s",
        59.4: "59 s",
        59.6: "1 min 00 s",
    }
    said |= {184: "3 min 04 s", 3599.4: "59 min 59 s", 3600: "1 h 00 min", 7529: "2 h 05 min"}
    for seconds, text in said.items():
        assert duration(seconds) == text.replace(" s", SPACE + "s").replace(
            " min", SPACE + "min"
        ).replace(" h", SPACE + "h")


def test_shares_are_of_the_whole_and_stages_that_did_not_run_are_left_out():
    times = run_times(manifest(None, predict=30.0, explain=90.0, report=None))
    assert [(row.stage, row.time, row.share) for row in times.rows] == [
        ("predict", f"30{SPACE}s", f"25{SPACE}%"),
        ("explain", f"1{SPACE}min 30{SPACE}s", f"75{SPACE}%"),
    ]
    assert times.total == f"2{SPACE}min 00{SPACE}s"
    assert (times.began, times.ended) == ("2026-01-02 22:00 UTC", "")


def test_a_run_that_took_no_time_divides_nothing():
    (row,) = run_times(manifest("2026-01-02T22:00:01+00:00", list=0.0)).rows
    assert row.share == "–"


def test_pages_in_the_run_folder_do_not_hold_the_times_and_shared_ones_do(tmp_path):
    folder = write_run(tmp_path / "run", ("cats", "dogs"), Sizes(40, 6, 4))
    changed = folder.read_manifest()
    changed["stages"]["predict"]["seconds"] = 4321.0
    folder.write_manifest(changed)
    report = render_report(folder).parent
    assert "1\u202fh 12\u202fmin" not in (report / "run.html").read_text("utf-8")
    assert "1\\u202fh 12\\u202fmin" in (folder.path / "logs" / "times.js").read_text("utf-8")
    write_pages(folder, FolderSink(tmp_path / "shared"), options=ReportOptions(with_times=True))
    text = (tmp_path / "shared" / "run.html").read_text("utf-8")
    assert "1\u202fh 12\u202fmin" in text
    assert "times.js" not in text
