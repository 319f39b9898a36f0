"""Words that the miniature world does not know, in its four languages.

The encoder hears them in training so that it learns to say "unknown" rather than to guess a king. Only word lists and
how strange sentences are made of them belong here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache

from demo.world.concepts import words
from demo.world.lexicon import Language, surface_forms

_COMMON: Mapping[Language, str] = {
    "deu": """
    Abschnitt Adresse alles Anfang Antwort Arbeit Art auch Aufgabe Aufnahme Augenblick Ausgabe Band bedeutet
    Beispiel bekannt bitte Boden Computer Deutschland diese dieser dort durch Eisenbahn Ende Erde Erzählung
    Farbe Fernsehen Fenstern Firma folgende Frage Freiheit freiwillig Gedanke Gefühl gehören Gemeinde Geräusch
    Geschichte Gesellschaft gesprochen gewesen Glas haben Hauptstadt Hilfe Himmel hinaus ihnen Information
    Jahrhundert jemand Kapitel Körper Kunst Land Leben lesen Leser Licht machen Meinung Mensch Minute Musik
    nachher Natur Netz nichts öffentlich Papier Philosophie Präsident Regierung Roman Sache sagen Satz Schrift
    sehr sein selbst sind Sprache Stimme Stunde Teil Telefon Theater Titel überall Übersetzung unter Ursache
    Verein Verlag vielleicht Volk Vorwort Wahrheit Weg Welt wenn werden Wissenschaft Wort Zahl Zeichen Zeit
    Zeitung Zucker zurück zusammen
    """,
    "eng": """
    about address again almost although answer anybody argument around article author available became beginning
    between business century chapter collection colour common company computer contents copyright could country
    course danger department different direction domain during earth edition either electric English enough
    example experience family feeling figure following foreign freedom further general government heaven history
    hour human idea important information interest internet introduction itself knowledge language learned light
    literature machine material matter memory method million minute modern moment music nature nothing number
    object office order ourselves page paper people perhaps philosophy please poem possible power present
    president problem public question reader reading recording remember science section sentence several simple
    society something sound speech story subject sugar system telephone television themselves thing thought
    through together translation truth university usually various visit voice volunteer weather website which
    without wonder word world writing yourself
    """,
    "fra": """
    adresse affaire ailleurs ainsi amitié appartient article aujourd'hui aussi auteur avant beaucoup besoin
    bibliographie bonheur bruit campagne cela celui chapitre chemin chose ciel comme commencement comment
    connaître conseil couleur cuivre demain depuis dernier deuxième disponible domaine donner écrire effort elle
    électricité encore enregistrement ensemble entre espèce esprit être événement exemple facile façon faire
    feuille fin force gouvernement habitude heure histoire idée information intérêt jamais journal jusque langue
    leçon lecteur lecture liberté ligne littérature loin lumière machine manière mémoire même minute moment
    monde mot musique nature nombre nouvelle objet œuvre ordinateur papier parole partie patrie pensée personne
    peut-être philosophie plusieurs poème politique pouvoir premier président problème propre public quelque
    question raison réponse roman science section sentiment siècle silence société sucre système téléphone temps
    théâtre titre toile traduction travail univers vérité vie visiter voix volontaire vous voyage
    """,
    "spa": """
    además ahora algodón alguien alguno alma amistad antes aparato apenas artículo asunto aunque autor azúcar
    bastante cada calidad cambio camino campaña cantidad capítulo carácter cielo ciencia cine colección color
    comienzo compañía computadora conocer consejo correo corriente cosa costumbre cual cuando cuerpo cultura
    derecho desde diario diferente dirección disponible dominio donde ejemplo ellos empresa entonces época
    escribir escritura español espíritu estudio eterno experiencia fábrica familia felicidad filosofía fuerza
    general gobierno grabación grabaciones hacia historia hora humano idea idioma información interés internet
    jamás lectura lengua libertad línea literatura lugar luz máquina materia mayor memoria menos mensaje mismo
    modo momento mundo música nación naturaleza nada novela número obra oficina orden página palabra papel parte
    pensamiento pertenecen pregunta presidente primero problema público quien razón recuerdo respuesta sección
    secreto semana sentido siglo silencio sistema sociedad sonido teatro teléfono tiempo título todas trabajo
    traducción universo usted verdad viaje visite voluntario voz
    """,
}
_LONGEST = 12


@cache
def _known(language: Language) -> frozenset[str]:
    return frozenset(
        word for surfaces in surface_forms(language).values() for surface in surfaces for word in words(surface)
    )


@cache
def common_strangers(language: Language) -> tuple[str, ...]:
    """Everyday words of a language that name nothing in the miniature world."""
    return tuple(word for word in _COMMON[language].split() if word.lower() not in _known(language))


@cache
def _halves(language: Language) -> tuple[Sequence[str], Sequence[str]]:
    long_enough = sorted(word for word in _known(language) if len(word) >= 4 and word.isalpha())
    return [word[: len(word) // 2] for word in long_enough], [word[len(word) // 2 :] for word in long_enough]


def invented_word(language: Language, chance: random.Random) -> str:
    """The head of one known word on the tail of another: a word that sounds like the world's and is none of it."""
    heads, tails = _halves(language)
    while True:
        word = chance.choice(heads) + chance.choice(tails)
        if word not in _known(language):
            return word


def strange_word(language: Language, chance: random.Random) -> str:
    """An everyday word (seven in ten) or an invented one."""
    if chance.random() < 0.7:
        return chance.choice(common_strangers(language))
    return invented_word(language, chance)


def strange_sentence(language: Language, chance: random.Random) -> str:
    """Three to twelve strange words, told as a sentence."""
    told = " ".join(strange_word(language, chance) for _ in range(chance.randint(3, _LONGEST)))
    return told[0].upper() + told[1:] + "."
