"""Text that was decoded with the wrong character set."""

import pytest
from worker_email_classifier.garbled import garbled_share, repaired

GERMAN = "Grüße aus München, schöne Straßen und ältere Häuser über dem Fluss"


@pytest.mark.parametrize(
    "text", ["", "plain text", GERMAN, "naïve café", "日本語のテキスト", "Привет, мир"]
)
def test_good_text_is_left_alone(text):
    assert repaired(text) == text
    assert garbled_share(text) == 0.0


def test_utf_8_read_as_windows_1252_is_put_right():
    assert repaired(GERMAN.encode().decode("cp1252")) == GERMAN


def test_text_that_cannot_have_come_from_windows_1252_is_left_alone():
    text = "Ã¤ Ã¶ Ã¼ 漢字"
    assert repaired(text) == text


def test_cut_sequences_do_not_raise():
    garbled = GERMAN.encode().decode("cp1252")[:20] + "Ã"
    assert isinstance(repaired(garbled), str)


def test_lost_characters_are_measured():
    little = garbled_share("one lost \ufffd character in a long line of good text " * 3)
    much = garbled_share("\ufffd\ufffd\ufffd\ufffdab\ufffd\ufffd")
    assert 0.0 < little < much <= 1.0
