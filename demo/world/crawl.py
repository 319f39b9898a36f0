"""What a crawl brings along with sentences: menus, foreign lines, addresses, and damage; all of our own making.

Word lists and what is done to a line belong here: pure, with chance passed in. Which sentences there are is
`demo.world.texts`, how they become pages `demo.world.pages`.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from demo.world.lexicon import Language

MENUS: Mapping[Language, tuple[str, ...]] = {
    "deu": (
        "Startseite | Märchen | Verzeichnis | Hilfe",
        "Diese Seite verwendet Cookies, damit Sie sich nicht jedes Mal neu anmelden müssen. Mehr erfahren.",
        "Alle akzeptieren",
        "Nur notwendige Cookies",
        "Zum Inhalt springen",
        "Weiterlesen »",
        "Impressum · Datenschutz · Kontakt",
        "Alle Rechte vorbehalten.",
        "Dieser Beitrag hat noch keine Kommentare.",
        "Abonnieren Sie unseren kostenlosen Rundbrief und verpassen Sie keine Geschichte mehr.",
        "Seite {number} von {pages}",
        "Suchen …",
    ),
    "eng": (
        "Home | Tales | Index | Help",
        "This site uses cookies so that you need not sign in again every time. Learn more.",
        "Accept all",
        "Necessary cookies only",
        "Skip to content",
        "Read more »",
        "Legal notice · Privacy · Contact",
        "All rights reserved.",
        "There are no comments on this post yet.",
        "Subscribe to our free newsletter and never miss another story.",
        "Page {number} of {pages}",
        "Search …",
    ),
    "fra": (
        "Accueil | Contes | Index | Aide",
        "Ce site utilise des cookies pour que vous n'ayez pas à vous reconnecter à chaque visite. En savoir plus.",
        "Tout accepter",
        "Cookies nécessaires seulement",
        "Aller au contenu",
        "Lire la suite »",
        "Mentions légales · Confidentialité · Contact",
        "Tous droits réservés.",
        "Il n'y a pas encore de commentaires sur cet article.",
        "Abonnez-vous à notre lettre gratuite et ne manquez plus aucune histoire.",
        "Page {number} sur {pages}",
        "Rechercher …",
    ),
    "spa": (
        "Inicio | Cuentos | Índice | Ayuda",
        "Este sitio utiliza cookies para que no tenga que iniciar sesión en cada visita. Más información.",
        "Aceptar todo",
        "Solo las cookies necesarias",
        "Saltar al contenido",
        "Seguir leyendo »",
        "Aviso legal · Privacidad · Contacto",
        "Todos los derechos reservados.",
        "Todavía no hay comentarios en esta entrada.",
        "Suscríbase a nuestro boletín gratuito y no se pierda ninguna historia.",
        "Página {number} de {pages}",
        "Buscar …",
    ),
}
ABBREVIATED: Mapping[Language, tuple[str, ...]] = {
    "deu": (
        "Dr. Kleinwelt wohnt seit dem 3. Mai in der Lindenstr. 14 und bleibt dort ca. 2,5 Jahre.",
        "Die Schuhe kosteten z. B. 12,50 Mark, d. h. mehr als der Hut von Prof. Zeisig.",
        "„Kommen Sie morgen um 8.30 Uhr“, sagte Frl. A. B. Winter, „und bringen Sie Brot, Käse usw. mit.“",
        "Der 1. Band erschien bei St. Gallen, der 2. bzw. 3. erst nach dem 30. Jahrestag des Vereins.",
    ),
    "eng": (
        "Dr. Miniature has lived at 14 Linden St. since 3 May and will stay there for approx. 2.5 years.",
        "The shoes cost e.g. $12.50, i.e. more than the hat of Prof. Thimble.",
        '"Come tomorrow at 8.30 a.m.," said Mrs. A. B. Winter, "and bring bread, cheese, etc. with you."',
        "Vol. 1 was printed near St. Albans, vols. 2 and 3 only after the 30th birthday of Thimble & Co. in town.",
    ),
    "fra": (
        "M. Petitmonde habite depuis le 3 mai au 14, av. des Tilleuls, et y restera env. 2,5 ans.",
        "Les chaussures coûtaient p. ex. 12,50 francs, c.-à-d. plus que le chapeau du Dr Dé.",
        "« Venez demain à 8 h 30 », dit Mme A. B. Hiver, « et apportez du pain, du fromage, etc. avec vous. »",
        "Le t. 1 parut près de St. Gall, les t. 2 et 3 seulement après le 30e anniversaire de Dé & Cie en ville.",
    ),
    "spa": (
        "El Dr. Mundillo vive desde el 3 de mayo en la Avda. de los Tilos, núm. 14, y se quedará aprox. 2,5 años.",
        "Los zapatos costaban p. ej. 12,50 pesetas, es decir, más que el sombrero de la Sra. Dedal.",
        "«Venga mañana a las 8.30 h», dijo Dña. A. B. Invierno, «y traiga pan, queso, etc. con usted».",
        "El vol. 1 se imprimió cerca de S. Galo, los vols. 2 y 3 solo tras el 30.º aniversario de Dedal y Cía. allí.",
    ),
}
"""Sentences whose full stops end nothing, and that nobody narrates."""

BROKEN: Mapping[Language, tuple[bytes, ...]] = {
    "deu": ("Die Möwe flog über den Fluß und grüßte höflich.".encode("latin-1"), b"\xff\xfe\x00\x01 \xc3\x28 Ende"),
    "eng": ("“The café closed at noon,” said the naïve usher.".encode("cp1252"), b"\xff\xfe\x00\x01 \xc3\x28 end"),
    "fra": ("Où l’été s’était-il caché, demanda la mouette.".encode("cp1252"), b"\xff\xfe\x00\x01 \xc3\x28 fin"),
    "spa": ("La gaviota voló por encima del cañón, según él.".encode("latin-1"), b"\xff\xfe\x00\x01 \xc3\x28 fin"),
}
"""Lines that are no UTF-8."""

FOREIGN: Mapping[str, tuple[str, ...]] = {
    "ita": (
        "Il vecchio falegname chiuse la bottega prima che cominciasse a piovere sulla piazza.",
        "Nessuno sapeva perché la finestra della soffitta fosse rimasta aperta tutta la notte.",
        "La mattina dopo trovarono soltanto un ombrello e due biglietti del treno per Bologna.",
    ),
    "nld": (
        "De oude timmerman sloot zijn werkplaats voordat het op het plein begon te regenen.",
        "Niemand wist waarom het zolderraam de hele nacht was blijven openstaan.",
        "De volgende ochtend vonden ze alleen een paraplu en twee treinkaartjes naar Utrecht.",
    ),
    "por": (
        "O velho carpinteiro fechou a oficina antes que começasse a chover na praça.",
        "Ninguém sabia por que a janela do sótão tinha ficado aberta durante toda a noite.",
        "Na manhã seguinte encontraram apenas um guarda-chuva e dois bilhetes de comboio para Coimbra.",
    ),
    "swe": (
        "Den gamle snickaren stängde verkstaden innan det började regna över torget.",
        "Ingen visste varför fönstret på vinden hade stått öppet hela natten.",
        "Nästa morgon hittade de bara ett paraply och två tågbiljetter till Uppsala.",
    ),
    "pol": (
        "Stary stolarz zamknął warsztat, zanim na rynku zaczął padać deszcz.",
        "Nikt nie wiedział, dlaczego okno na strychu było otwarte przez całą noc.",
        "Następnego ranka znaleźli tylko parasol i dwa bilety na pociąg do Krakowa.",
    ),
    "rus": (
        "Старый плотник закрыл мастерскую, прежде чем над площадью начался дождь.",
        "Никто не знал, почему окно на чердаке всю ночь оставалось открытым.",
        "На следующее утро нашли только зонтик и два билета на поезд до Твери.",
    ),
    "ell": (
        "Ο γέρος μαραγκός έκλεισε το εργαστήριο πριν αρχίσει να βρέχει στην πλατεία.",
        "Κανείς δεν ήξερε γιατί το παράθυρο της σοφίτας έμεινε ανοιχτό όλη τη νύχτα.",
    ),
    "jpn": (
        "年老いた大工は、広場に雨が降り始める前に仕事場を閉めた。",
        "屋根裏の窓がなぜ一晩中開いていたのか、誰も知らなかった。",
    ),
}
"""A tale that is nobody's translation, in languages that nobody asked for."""

RUBBISH: tuple[str, ...] = (
    "https://tales.example/archive/index.php?page=12&sort=desc",
    "www.tales.example/de/en/fr/es/#top",
    "12 | 13 | 14 | 15 | 16 | 17 | 18 | 19 | 20",
    "+00 000 00 00 00 – office@tales.example",
    "ISBN 000-0-00-000000-0; 12,50; 1848–1921; 90201/90205",
    "* * * * * * * * * * * * * * * *",
    "OK",
    ">>",
    "…",
    "function toggle(id){var e=document.getElementById(id);e.style.display=e.style.display=='none'?'':'none';}",
    "2026-01-01 00:00:00 +0000 GMT 1767225600 200 304 404 500",
    "QWxsIG9mIHRoaXMgaXMgb2Ygb3VyIG93biBtYWtpbmcgYW5kIG1lYW5zIG5vdGhpbmcu",
)

Change = Callable[[str, random.Random], str]
_INVISIBLE = ("\u00ad", "\u200b", "\u2060", "\ufeff")
_SPACES = (" ", "\u00a0", "\u2009", "\t")
_QUOTED: Mapping[Language, tuple[str, str]] = {
    "deu": ("„", "“"),
    "eng": ("“", "”"),
    "fra": ("«\u00a0", "\u00a0»"),
    "spa": ("«", "»"),
}


def decomposed(text: str, chance: random.Random) -> str:
    """Letters and their marks as two characters each (NFD)."""
    return unicodedata.normalize("NFD", text)


def invisible(text: str, chance: random.Random) -> str:
    """Soft hyphens, zero-width spaces and the like inside three words."""
    for _ in range(3):
        inside = [place for place in range(1, len(text)) if text[place - 1].isalpha() and text[place].isalpha()]
        place = chance.choice(inside)
        text = text[:place] + chance.choice(_INVISIBLE) + text[place:]
    return text


def spaced(text: str, chance: random.Random) -> str:
    """Runs of odd spaces in place of some spaces, and at both ends."""
    words = text.split(" ")
    gaps = [" " if chance.random() < 0.7 else "".join(chance.choices(_SPACES, k=2)) for _ in words[1:]]
    return "  " + "".join(word + gap for word, gap in zip(words, [*gaps, " \u00a0"], strict=True))


def controlled(text: str, chance: random.Random) -> str:
    """Control characters at the ends of words."""
    words = text.split(" ")
    words[chance.randrange(len(words))] += chance.choice("\x07\x08\x1b")
    return " ".join(words)


def escaped(text: str, chance: random.Random) -> str:
    """HTML's entities for every letter that is not ASCII, and for spaces here and there."""
    entities = text.encode("ascii", "xmlcharrefreplace").decode("ascii")
    return entities.replace(" ", "&nbsp;", 1)


def garbled(text: str, chance: random.Random) -> str:
    """UTF-8 read as Latin-1 (mojibake)."""
    return text.encode().decode("latin-1")


def shouted(text: str, chance: random.Random) -> str:
    """The same in capitals."""
    return text.upper()


def repunctuated(text: str, chance: random.Random) -> str:
    """Another mark at the end, and commas left out."""
    return text.rstrip(".").replace(",", "") + chance.choice(("!", " …", " ."))


def quoted(text: str, language: Language) -> str:
    """The whole sentence in a language's quotes."""
    opening, closing = _QUOTED[language]
    return opening + text + closing


CLEANED: Sequence[Change] = (decomposed, invisible, spaced, controlled)
"""Damage that cleaning repairs: the sentence comes out as it was."""
SPOILT: Sequence[Change] = (escaped, garbled)
"""Damage that a cleaner may repair or drop; never all there is of a translation."""
REPEATED: Sequence[Change] = (shouted, repunctuated)
"""The same sentence in other letters or marks: a near-duplicate."""
