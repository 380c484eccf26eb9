"""Excel workbooks by way of openpyxl: each row of each sheet a record with its headings, values as they are shown."""

from __future__ import annotations

import datetime
import io
import re
from typing import Any

from crisp_rag.pipelines.loading.document import INSTALL, Extracted
from crisp_rag.pipelines.loading.packed import open_package, read_member
from crisp_rag.pipelines.loading.records import RecordWriter, add_rows

MAX_CELLS = 5_000_000
_CURRENCY = re.compile(r'\[\$([^\]-]+)[^\]]*\]|"([^"]*)"|([€$£¥])|\\(.)')
_FORMULA = re.compile(rb"<f[ >/]")
_DECIMALS = re.compile(r"0\.(0+)")


def load_workbook(path: object, data: bytes) -> Extracted:
    """An .xlsx or .xlsm file."""
    try:
        import openpyxl
    except ImportError as error:
        raise ImportError(f"Reading Excel files needs openpyxl: {INSTALL}") from error
    open_package(path, data, "an Excel file").close()
    book = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    out, notes = RecordWriter(), []
    left = MAX_CELLS
    for sheet in book.worksheets:
        if sheet.sheet_state != "visible":
            notes.append(f"sheet {sheet.title!r} is hidden and was left out")
            continue
        left -= sheet.max_row * sheet.max_column
        if left < 0:
            notes.append(f"sheet {sheet.title!r} and those behind it are too large and were left out")
            break
        spanning = {}
        for area in sheet.merged_cells.ranges:
            first = sheet.cell(area.min_row, area.min_col)
            if (area.max_row - area.min_row + 1) * (
                area.max_col - area.min_col + 1
            ) <= 10_000 and area.max_col - area.min_col + 1 < sheet.max_column:
                spanning.update({(row, column): first for row, column in area.cells})
        rows = (
            (number, [_shown(spanning.get((number, cell.column), cell)) for cell in cells])
            for number, cells in enumerate(sheet.iter_rows(), 1)
        )
        add_rows(out, rows, sheet=sheet.title)
    unknown = _formulas_without_value(openpyxl, data)
    if unknown:
        notes.append(f"{unknown} formulas have no stored value: open the file once in Excel and save it")
    title = str(book.properties.title or "")
    return out.extracted(title, notes)


def _shown(cell: Any) -> str:
    """A cell's value as a sheet shows it: percent, currency and dates keep what makes them that."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (int, float)):
        return _number(value, str(cell.number_format or "General"))
    return str(value)


def _number(value: float, shown: str) -> str:
    shown = shown.split(";")[0]
    decimals = _DECIMALS.search(shown)
    places = len(decimals.group(1)) if decimals else 0
    if "%" in shown:
        return f"{value * 100:.{places}f}%"
    if "E+" in shown or shown in ("General", "@"):
        number = f"{value:.15g}" if isinstance(value, float) else str(value)
    elif decimals:
        number = f"{value:.{places}f}"
    else:
        number = f"{value:.0f}" if "0" in shown and float(value).is_integer() else f"{value:.15g}"
    unit = _CURRENCY.search(shown)
    sign = next((part for part in unit.groups() if part and part.strip()), "").strip() if unit else ""
    if not sign or not unit:
        return number
    return f"{sign}{number}" if unit.start() < shown.find("0") and sign in "€$£¥" else f"{number} {sign}"


def _formulas_without_value(openpyxl: Any, data: bytes) -> int:
    """Formulas that were never computed: a program wrote the file, and no one opened it."""
    with open_package("", data, "an Excel file") as package:
        sheets = [info for info in package.infolist() if info.filename.startswith("xl/worksheets/")]
        if len(data) > 2_000_000 or not any(_FORMULA.search(read_member("", package, info)) for info in sheets):
            return 0
    asked = openpyxl.load_workbook(io.BytesIO(data), data_only=False)
    known = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    count = 0
    for sheet in asked.worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                if cell.data_type == "f" and known[sheet.title].cell(cell.row, cell.column).value is None:
                    count += 1
    return count
