"""Bytes to text, whatever was declared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_email_parser.charsets import decode


@pytest.mark.parametrize(
    ("data", "label", "text", "defects"),
    [
        (b"abc", None, "abc", []),
        ("é".encode(), "utf-8", "é", []),
        (b"\x93q\x94", "iso-8859-1", "“q”", []),
        ("é".encode(), None, "é", ["charset-undeclared"]),
        ("é".encode(), "us-ascii", "é", ["charset-undeclared"]),
        (b"caf\xe9", None, "café", ["charset-undeclared"]),
        (b"caf\xe9", "no-such-charset", "café", ["charset-unknown"]),
        (b"caf\xe9", "rot13", "café", ["charset-unknown"]),
        ("é".encode(), "big5-hkscs-but-wrong", "é", ["charset-unknown"]),
        (b"caf\xe9!", "utf-8", "caf�!", ["charset-wrong"]),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", "日本", []),
        ("스티해".encode("cp949"), "ks_c_5601-1987", "스티해", []),
        (b"+2AA-", "utf-7", "?", []),
    ],
)
def test_text_and_what_was_wrong(data, label, text, defects):
    found = []
    assert (decode(data, label, found), found) == (text, defects)


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("cp1251", "Привет, это письмо без объявленной кодировки. Ответьте до пятницы."),
        ("koi8_r", "Привет, это письмо без объявленной кодировки. Ответьте до пятницы."),
        ("cp1253", "Αγαπητοί συνεργάτες, σας στέλνουμε την αναφορά του προηγούμενου μήνα."),
        (
            "gb18030",
            (
                "您好、感谢您的来信。我们已经收到您的订单、将在三个工作日内发货。"
                "如有任何问题、请随时与我们联系。祝您工作愉快、身体健康。公司地址没有变化、电话也一样。"
            ),
        ),
        ("big5", "您好、感謝您的來信。我們已經收到您的訂單、將在三個工作日內發貨。"),
        ("shift_jis", "お世話になっております。ご注文いただきありがとうございます。"),
        ("cp1252", "Sehr geehrte Damen, anbei die Übersicht für März. Mit freundlichen Grüßen"),
    ],
)
def test_an_undeclared_alphabet_is_guessed(charset, text):
    assert decode(text.encode(charset), None, []) == text


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "utf-8", "utf-16", "utf-7", "gb2312", "hz", "x", "idna"]),
)
def test_any_bytes_become_text_that_json_can_hold(data, label):
    decode(data, label, []).encode("utf-8")
