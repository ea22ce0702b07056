from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pypdf
import pytest
from billing_home import AS_OF, Charge, make_home, rate

from core.actor import Actor
from core.periods import parse_instant
from invoicing import documents, register, run
from storage import sql
from storage.home import Home

ACTOR = Actor("tester", "test")
HOSTILE = [
    '#include "/etc/passwd"',
    "#set page(width: 1cm)",
    '"); #panic("x") //',
    "$ x^2 $ *bold* _it_ `raw` \\ @ref <label>",
    "=cmd()|' /C calc'!A0",
    "שלום مرحبا \u202egnp.exe",
    "漢字 😀 \ufffd \x07",
    "W" * 200,
    "ООО «Рога и копыта» №1",
    "{{ 7*7 }} %s %n </script>",
]


def _home(folder: Path, language: str = "en", name: str = "Ada Beck") -> Home:
    home = make_home(folder, 2, language=language, names={"A1": name})
    traffic = {
        "kind": "traffic",
        "unit": "GB",
        "unit_price": "0.50",
        "zone": "day",
        "class_": "default",
        "direction": "down",
    }
    rate(
        home,
        "2026-10",
        [Charge("S1"), Charge("S1", "Traffic by day", 1234567, quantity="24691.34", **traffic), Charge("S2")],
        usage=[
            {"service": 1, "octets": 24_691_340_000_000, "zone": "day"},
            {"service": 1, "octets": 7, "zone": "night"},
        ],
    )
    run.run(home, "2026-10", parse_instant(AS_OF), False, ACTOR)
    return home


def _document(home: Home, number: str = "A-000001") -> str:
    with sql.reading(sql.engine(home)) as connection:
        return register.find(connection, number).document


def _text(pdf: bytes) -> str:
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    text = " ".join(page.extract_text() for page in pages)
    return " ".join(text.replace("\u200b", "").replace("\u00a0", " ").replace("\u00ad", "").split())


def test_the_same_document_gives_the_same_bytes(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    made = documents.render(_document(home))
    assert made == documents.render(_document(home))
    other = _home(tmp_path / "other")
    assert made == documents.render(_document(other)), "also in another home and another process's order"
    assert b"pdfaid:part>3<" in made


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Invoice", "A-000001", "2 November 2026", "16 November 2026", "October 2026", "Ada Beck", "Home 100",
                "Traffic by day", "24,691.34", "12,345.67", "12,365.57", "2,349.46", "14,715.03 EUR", "Amount payable",
                "DE02 1203 0000 0000 2020 51", "24,691.340 GB", "night", "Page 1 of 1"]),
        ("ru", ["Счёт", "A-000001", "2 ноября 2026", "16 ноября 2026", "октябрь 2026", "Ada Beck", "Home 100",
                "24 691,34", "12 345,67", "12 365,57", "14 715,03 EUR", "К оплате", "24 691,340 GB", "Страница 1 из 1"]),
    ],
)  # fmt: skip
def test_the_page_says_what_the_invoice_says(tmp_path: Path, language: str, expected: list[str]) -> None:
    text = _text(documents.render(_document(_home(tmp_path / "home", language))))
    assert [part for part in expected if part not in text] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_customer_is_called_is_shown_and_never_read_as_code(tmp_path: Path, name: str) -> None:
    text = _text(documents.render(_document(_home(tmp_path / "home", name=name))))
    assert "Amount payable" in text
    latin = "".join(character for character in name if character.isascii() and character.isprintable())
    assert latin.replace(" ", "") in text.replace(" ", "").replace("’", "'").replace("“", '"').replace("”", '"')


def test_every_font_is_embedded(tmp_path: Path) -> None:
    reader = pypdf.PdfReader(io.BytesIO(documents.render(_document(_home(tmp_path / "home", "ru")))))
    fonts = reader.pages[0]["/Resources"]["/Font"]  # type: ignore[index]
    for font in fonts.values():
        below = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
        assert "/FontFile3" in below or "/FontFile2" in below


def test_a_credit_note_asks_for_no_money(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    rate(home, "2026-10", [Charge("S1", net=995, quantity="15/31"), Charge("S2")])
    run.run(home, "2026-10", parse_instant(AS_OF), False, ACTOR)
    text = _text(documents.render(_document(home, "A-000003")))
    assert "Credit note" in text
    assert "correction: instead of 1" in text
    assert "cancelled: 24,691.34" in text
    assert "IBAN" not in text


def test_an_invoice_of_many_lines_runs_over_pages_with_its_heading_repeated(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 1)
    rate(home, "2026-10", [Charge("S1", f"Line {n:03d}", net=n) for n in range(1, 121)])
    run.run(home, "2026-10", parse_instant(AS_OF), False, ACTOR)
    pages = pypdf.PdfReader(io.BytesIO(documents.render(_document(home)))).pages
    assert len(pages) > 2
    assert all("Description" in page.extract_text() for page in pages[:-1])
    assert "Line 120" in pages[-1].extract_text() + pages[-2].extract_text()


def test_all_documents_of_a_period_are_rendered_on_several_processes_and_kept(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 40)
    rate(home, "2026-10", [Charge(f"S{n}") for n in range(1, 41)])
    run.run(home, "2026-10", parse_instant(AS_OF), False, ACTOR)
    assert documents.render_all(home, "2026-10", 2) == 40
    folder = home.folder("documents") / "2026-10"
    assert len(list(folder.iterdir())) == 40
    assert (folder / "A-000007.pdf").read_bytes() == documents.render(_document(home, "A-000007"))
    (folder / "A-000007.pdf").unlink()
    assert documents.render_period(home, "2026-10") == (1, 39)
    assert documents.render_period(home, "2026-10", 1, again=True) == (40, 0)


def test_the_document_pins_what_it_was_made_of(tmp_path: Path) -> None:
    made_of = json.loads(_document(_home(tmp_path / "home")))["made_of"]
    assert made_of["plans"] == [{"plan": "home-100", "version": "2026-01-01", "digest": "digest of home-100"}]
    [pinned] = made_of["rate_runs"]
    assert (pinned["period"], pinned["rate_run"], pinned["engine_version"]) == ("2026-10", 1, "1")
    assert len(pinned["charges_digest"]) == len(pinned["usage_digest"]) == len(made_of["settings_digest"]) == 64


def test_the_text_can_be_read_by_poppler_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(documents.render(_document(_home(tmp_path / "home", "ru", "Иван Петров"))))
    try:
        done = subprocess.run(["pdftotext", str(path), "-"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    assert "Иван Петров" in done.stdout
