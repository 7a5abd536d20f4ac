"""A conversation in another language is told by its words; code, names and short answers are not enough."""

from __future__ import annotations

import socket

import pytest

from assay.core.schema import Conversation, Message
from assay.read.languages import _detector, language_of_conversation
from assay.rewards.catalog import CATALOG

SAID = {
    "en": ("Why do leaves turn red in autumn?", "They stop making green pigment, and other colours show."),
    "zh": ("为什么秋天树叶会变红？", "树叶停止制造绿色的色素，别的颜色就显露出来了。"),
    "ko": ("가을에 나뭇잎은 왜 빨갛게 변하나요?", "초록 색소를 더 만들지 않아서 다른 색이 드러납니다."),
    "fr": (
        "Pourquoi les feuilles rougissent-elles en automne ?",
        "Elles ne font plus de pigment vert, et d'autres couleurs apparaissent.",
    ),
    "es": (
        "¿Por qué las hojas se ponen rojas en otoño?",
        "Dejan de producir el pigmento verde y se ven otros colores.",
    ),
    "ru": ("Почему осенью листья краснеют?", "Они перестают вырабатывать зелёный пигмент, и видны другие."),
    "ja": ("秋に木の葉が赤くなるのはなぜですか。", "緑の色素を作らなくなり、ほかの色が見えてくるからです。"),
    "de": (
        "Warum werden Blätter im Herbst rot?",
        "Sie bilden keinen grünen Farbstoff mehr, und andere Farben werden sichtbar.",
    ),
    "it": (
        "Perché in autunno le foglie diventano rosse?",
        "Smettono di produrre il pigmento verde e si vedono gli altri colori.",
    ),
    "pt": (
        "Por que as folhas ficam vermelhas no outono?",
        "Elas deixam de produzir o pigmento verde, e outras cores aparecem.",
    ),
    "pl": (
        "Dlaczego liście czerwienieją jesienią?",
        "Przestają wytwarzać zielony barwnik i widać inne kolory.",
    ),
    "id": (
        "Mengapa daun berubah menjadi merah pada musim gugur?",
        "Daun berhenti membuat pigmen hijau sehingga warna lain terlihat.",
    ),
    "nl": (
        "Waarom worden bladeren rood in de herfst?",
        "Ze maken geen groene kleurstof meer, en andere kleuren worden zichtbaar.",
    ),
    "vi": (
        "Tại sao lá cây chuyển sang màu đỏ vào mùa thu?",
        "Lá ngừng tạo sắc tố xanh nên những màu khác hiện ra.",
    ),
}
#: Languages of no card.
UNNAMED = {
    "sv": ("Varför blir löven röda på hösten?", "De slutar bilda grönt färgämne, och andra färger syns."),
    "uk": ("Чому восени листя червоніє?", "Воно перестає виробляти зелений пігмент, і видно інші."),
    "tr": ("Yapraklar sonbaharda neden kızarır?", "Yeşil pigment yapmayı bırakır, başka renkler görünür."),
}

CODE = "```python\nimport math\n\n\ndef area(radius):\n    return math.pi * radius**2\n```"


def talk(*said: str) -> Conversation:
    return tuple(Message(("user", "assistant")[number % 2], text) for number, text in enumerate(said))


def in_other_language(conversation: Conversation, languages: tuple[str, ...]) -> bool:
    """Whether the language is sure, and none of these."""
    found = language_of_conversation(conversation)
    return found is not None and found not in languages


@pytest.mark.parametrize("language", SAID)
def test_a_language_that_a_card_names_is_distinguished_from_the_others(language: str) -> None:
    assert not in_other_language(talk(*SAID[language]), (language,))
    for other in SAID.keys() - {language}:
        assert in_other_language(talk(*SAID[language]), (other,))


@pytest.mark.parametrize("language", UNNAMED)
def test_a_language_that_no_card_names_is_in_none(language: str) -> None:
    assert in_other_language(talk(*UNNAMED[language]), tuple(SAID))


def test_every_language_of_the_catalog_is_tried_here() -> None:
    assert {language for entry in CATALOG.values() for language in entry.languages} == set(SAID)


@pytest.mark.parametrize(
    "said",
    [
        ("What does 北京 mean?", "It is the name of a city, and means northern capital."),
        ("Bonjour!", "Salut!"),
        ("北京", "东京"),
        ("1 + 1 = 2; 🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂", "42"),
        ("", ""),
        ("x", CODE),
        ("Write the area of a circle.", CODE * 30),
        ("SELECT a, b FROM t JOIN u ON t.x = u.y WHERE a > 3", "a | b\n1 | 2\n3 | 4"),
        ("npm install lodash axios cors dotenv", "sudo systemctl restart nginx mysqld"),
        ("CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"),
        ("Paracetamol, Ibuprofen", "Amoxicillin, Metformin, Lisinopril"),
        ("I AM SHOUTING AT YOU, CAN YOU HEAR ME?", "YES, LOUD AND CLEAR."),
    ],
)
def test_what_is_not_surely_another_language_is_not_called_one(said: tuple[str, str]) -> None:
    assert not in_other_language(talk(*said), ("en",))


def test_the_words_around_code_decide_and_not_the_code() -> None:
    assert in_other_language(talk("Schreibe mir die Fläche eines Kreises auf.", CODE * 30), ("en",))


def test_the_language_of_most_of_a_conversation_decides() -> None:
    mostly_german = talk(*SAID["de"], "Danke! In English, please.", "Gern: " + SAID["de"][1] * 3)
    assert in_other_language(mostly_german, ("en",))
    assert not in_other_language(mostly_german, ("en", "de"))


def test_finding_a_language_uses_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    _detector.cache_clear()
    assert in_other_language(talk(*SAID["fr"]), ("en",))
