"""The words, numbers and dates of a document in its language: English and Russian."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from core.money import format_minor
from invoicing.lines import Line

_EN = {
    "invoice": "Invoice",
    "credit_note": "Credit note",
    "number": "Number",
    "issued": "Issued",
    "due": "Due",
    "period": "Billing period",
    "account": "Account",
    "currency": "Currency",
    "seller": "From",
    "buyer": "Bill to",
    "tax_id": "Tax ID",
    "line": "No.",
    "description": "Description",
    "quantity": "Quantity",
    "unit_price": "Price",
    "tax_short": "Tax %",
    "net_short": "Net",
    "service": "Service",
    "net": "Net total",
    "tax": "Tax",
    "on": "on",
    "gross": "Total",
    "payable": "Amount payable",
    "credited": "Amount credited to you",
    "prices_with_tax": "Prices marked * include tax.",
    "payment": "Payment",
    "beneficiary": "Beneficiary",
    "iban": "IBAN",
    "reference": "Reference",
    "amount": "Amount",
    "until": "Payable by",
    "no_payment": "Nothing is to be paid on this document; the amount is set off against what you owe.",
    "usage": "Traffic in",
    "zone": "Zone",
    "class": "Class",
    "direction": "Direction",
    "volume": "Volume",
    "up": "upload",
    "down": "download",
    "both": "both directions",
    "no_zone": "all day",
    "others": "Further traffic",
    "page": "Page",
    "of": "of",
    "correction": "correction",
    "instead_of": "instead of",
    "cancellation": "cancelled",
    "fee_unit_day": "day",
    "fee_unit_month": "month",
    "fee_unit_quarter": "quarter",
    "fee_unit_year": "year",
    "fee_unit_activation": "activation",
    "fee_unit_start": "start",
    "fee_unit_change": "change of plan",
    "fee_unit_end": "end",
    "fee_unit_early_end": "early end",
    "price_graduated": "graduated",
    "price_volume": "by volume",
}
_RU = {
    "invoice": "Счёт",
    "credit_note": "Корректировочный счёт",
    "number": "Номер",
    "issued": "Дата",
    "due": "Оплатить до",
    "period": "Расчётный период",
    "account": "Лицевой счёт",
    "currency": "Валюта",
    "seller": "Поставщик",
    "buyer": "Покупатель",
    "tax_id": "Налоговый номер",
    "line": "№",
    "description": "Наименование услуги",
    "quantity": "Количество",
    "unit_price": "Цена",
    "tax_short": "Налог, %",
    "net_short": "Без налога",
    "service": "Услуга",
    "net": "Итого без налога",
    "tax": "Налог",
    "on": "с",
    "gross": "Всего",
    "payable": "К оплате",
    "credited": "К зачёту в вашу пользу",
    "prices_with_tax": "Цены, отмеченные *, включают налог.",
    "payment": "Оплата",
    "beneficiary": "Получатель",
    "iban": "IBAN",
    "reference": "Назначение",
    "amount": "Сумма",
    "until": "Оплатить до",
    "no_payment": "Оплата по этому документу не требуется: сумма зачитывается в счёт вашей задолженности.",
    "usage": "Трафик за",
    "zone": "Зона",
    "class": "Класс",
    "direction": "Направление",
    "volume": "Объём",
    "up": "исходящий",
    "down": "входящий",
    "both": "оба направления",
    "no_zone": "круглосуточно",
    "others": "Прочий трафик",
    "page": "Страница",
    "of": "из",
    "correction": "корректировка",
    "instead_of": "вместо",
    "cancellation": "отменено",
    "fee_unit_day": "день",
    "fee_unit_month": "месяц",
    "fee_unit_quarter": "квартал",
    "fee_unit_year": "год",
    "fee_unit_activation": "подключение",
    "fee_unit_start": "начало",
    "fee_unit_change": "смена тарифа",
    "fee_unit_end": "окончание",
    "fee_unit_early_end": "досрочное окончание",
    "price_graduated": "по ступеням",
    "price_volume": "по объёму",
}
_NO_BREAK_SPACE = "\u00a0"
_WORDS: dict[str, Mapping[str, str]] = {"en": _EN, "ru": _RU}
_SEPARATORS = {"en": (",", "."), "ru": (_NO_BREAK_SPACE, ",")}


def words(language: str) -> Mapping[str, str]:
    return _WORDS[language]


def describe(line: Line, language: str) -> str:
    """The description of a line as it is stored and exported; it begins with the name of the charge's line."""
    return ", ".join([line.key.line, span(line.key.start, line.key.end, language), *_remarks(line, language)])


def _remarks(line: Line, language: str) -> list[str]:
    said = words(language)
    if line.nature == "charge":
        return []
    if line.nature == "correction" and line.before != line.quantity:
        return [f"{said['correction']}: {line.quantity} {said['instead_of']} {line.before} {line.key.unit}".rstrip()]
    return [said[line.nature]]


def span(start: str, end: str, language: str) -> str:
    """The days of a half-open span of local dates, first and last: '2026-10-01 – 2026-10-31'."""
    first = date.fromisoformat(start)
    last = date.fromordinal(date.fromisoformat(end).toordinal() - 1)
    return day(first, language) if first == last else f"{day(first, language)} – {day(last, language)}"


def day(value: date, language: str) -> str:
    """A date in figures."""
    return value.strftime("%d.%m.%Y") if language == "ru" else value.isoformat()


def long_day(value: date, language: str) -> str:
    """A date in words: '2 November 2026'."""
    from babel.dates import format_date

    return format_date(value, "d MMMM y", locale=language)


def month(period: str, language: str) -> str:
    """A period in words: 'October 2026'."""
    from babel.dates import format_date

    return format_date(date.fromisoformat(f"{period}-01"), "LLLL y", locale=language)


def amount(minor: int, currency: str, language: str) -> str:
    """'1,234.50' or '1 234,50'."""
    return number(format_minor(minor, currency), language)


def number(text: str, language: str) -> str:
    """A plain decimal in the language's writing; a text that is none ('14/28') stays as it is."""
    sign, digits = ("−", text[1:]) if text.startswith("-") else ("", text)
    whole, point, part = digits.partition(".")
    if not whole.isdigit() or (point and not part.isdigit()):
        return text
    group, decimal = _SEPARATORS[language]
    return sign + f"{int(whole):,}".replace(",", group) + (decimal + part if point else "")


def octets(value: int, language: str) -> str:
    """A volume in GB, to three decimals: whole numbers only, half-up."""
    thousandths = (value + 500_000) // 1_000_000
    return f"{number(f'{thousandths // 1000}.{thousandths % 1000:03d}', language)}{_NO_BREAK_SPACE}GB"
