"""Makes tickets.csv: support tickets in English and German, made up, with a few wrong labels.

    python examples/make_tickets.py tickets.csv
    python examples/make_tickets.py tickets.csv --planted planted.csv   # also which labels are wrong

The category follows from what the customer asks for. Most messages also name other matters ("this is not about the
invoice", "the parcel has come, but ..."), so that words alone do not decide it. Equal seeds give equal files.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import random

WEIGHTS = {"billing": 26, "delivery": 22, "fault": 18, "login": 13, "return": 10, "cancellation": 7, "wish": 4}
"""How frequent each category is."""
TOPICS = {
    "en": {
        "billing": "the invoice|the amount|a double charge|the payment|my bank details|the receipt|the price|the bill",
        "delivery": "the delivery|the parcel|the courier|the shipping|my package|the tracking number|the shipment",
        "fault": "the broken {part}|the noise|a defect|the {part}|the error message|the crash|the damage to the {part}",
        "login": "my password|my login|the code by text message|my user name|the locked account|signing in",
        "return": "the return|a refund|sending it back|the exchange|the return label|another size",
        "cancellation": "ending the contract|the cancellation|the notice period|closing my account|leaving you",
        "wish": "an idea|a missing feature|a suggestion|a wish for the app|a dark mode|an export to Excel",
    },
    "de": {
        "billing": "die Rechnung|den Betrag|eine doppelte Abbuchung|die Zahlung|meine Bankdaten|den Beleg|den Preis",
        "delivery": "die Lieferung|das Paket|den Boten|den Versand|meine Sendung|die Sendungsnummer|die Zustellung",
        "fault": "das Teil {part}|das Geräusch|einen Defekt|die Fehlermeldung|den Absturz|den Schaden am Teil {part}",
        "login": "mein Passwort|meine Anmeldung|den Code per SMS|meinen Benutzernamen|das gesperrte Konto|das Login",
        "return": "die Rückgabe|eine Erstattung|das Zurückschicken|den Umtausch|das Rücksendeetikett|eine andere Größe",
        "cancellation": "das Vertragsende|die Kündigung|die Kündigungsfrist|das Löschen meines Kontos|den Austritt",
        "wish": "eine Idee|eine fehlende Funktion|einen Vorschlag|einen Wunsch zur App|ein dunkles Design|ein Export",
    },
}
"""What a message of each category is about, also where another message only names it."""
ASKS = {
    "en": {
        "billing": "You charged me {amount} twice for the {product}.|Why is the {product} {amount} dearer "
        "here?|Please send the bill for order {number} to our new address.|The discount of {amount} is "
        "missing.|{amount} went off my card, but I ordered nothing.",
        "delivery": "Order {number} should have come on {day}.|Where is my {product}?|The courier left the {product} "
        "with a neighbour I do not know.|Can you bring the {product} on {day} instead?|Half of {number} was missing.",
        "fault": 'The {product} does not start any more.|The {part} of my {product} came off on {day}.|It says "error '
        '{code}" and stops.|Since the update the {product} crashes.|The {product} makes a loud noise.',
        "login": 'I cannot get into my account.|The code never comes.|It says "unknown user", although I have ordered '
        "before.|The link to reset my password shows error {code}.|After three tries you locked me out.",
        "return": "I would like to send the {product} back.|Please give me my money back for the {product}.|Can I "
        "swap the {product} for a larger one?|How do I get a label for order {number}?|The {product} does not suit me.",
        "cancellation": "Please end my contract on {day}.|I no longer need the service.|Delete my account and all "
        "that you know of me.|I do not want to renew in the new year.|When can I leave at the earliest?",
        "wish": "It would be good if the app could sort by {part}.|Could you offer the {product} in green?|A list of "
        'all orders would save me time.|Please let me turn off the {part} at night.|I miss a button for "order again".',
    },
    "de": {
        "billing": "Sie haben mir {amount} doppelt für {product} berechnet.|Warum kostet {product} {amount} "
        "mehr?|Bitte senden Sie die Abrechnung zu {number} noch einmal.|Der Rabatt von {amount} fehlt.|{amount} "
        "wurden abgebucht, obwohl ich nichts bestellt habe.",
        "delivery": "Bestellung {number} sollte am {day} kommen.|Wo bleibt {product}?|Der Bote hat {product} irgendwo "
        "gelassen.|Können Sie {product} lieber am {day} bringen?|Nur die Hälfte von {number} war im Karton.",
        "fault": '{product} startet nicht mehr.|Am {day} ist das Teil {part} abgefallen.|Es erscheint "Fehler '
        '{code}", dann geht nichts mehr.|Seit dem Update stürzt {product} ab.|{product} macht laute Geräusche.',
        "login": 'Ich komme nicht in mein Konto.|Der Code kommt nie an.|Es heißt "unbekannter Benutzer", obwohl ich '
        "schon bestellt habe.|Der Link zum Passwort zeigt Fehler {code}.|Nach drei Versuchen haben Sie mich "
        "ausgesperrt.",
        "return": "Ich möchte {product} zurückschicken.|Bitte geben Sie mir das Geld für {product} zurück.|Kann ich "
        "{product} gegen eine größere Ausführung tauschen?|Woher bekomme ich ein Etikett für {number}?|{product} "
        "passt mir nicht.",
        "cancellation": "Bitte beenden Sie meinen Vertrag zum {day}.|Ich brauche den Dienst nicht mehr.|Löschen Sie "
        "mein Konto und alles, was Sie über mich wissen.|Ich will im neuen Jahr nicht verlängern.|Wann kann ich gehen?",
        "wish": "Schön wäre, wenn die App nach {part} sortieren könnte.|Gibt es {product} auch in Grün?|Eine Liste "
        "aller Bestellungen würde mir Zeit sparen.|Bitte lassen Sie mich {part} nachts abschalten.|Mir fehlt ein "
        'Knopf "nochmal".',
    },
}
"""Sentences that only a message of the category has."""
CONTRASTS = {
    "en": "I am writing about {mine}, not about {other}.|This is not about {other}, it is about {mine}.|It is about "
    "{mine} and no longer about {other}.|Last week it was {other}, now it is {mine}.|Not {other}, but {mine} is why I "
    "write.|You answered me on {other}; my question was about {mine}.|I asked about {mine}, you told me about {other}.",
    "de": "Ich schreibe über {mine}, nicht über {other}.|Hier geht es nicht um {other}, sondern um {mine}.|Es geht um "
    "{mine} und nicht mehr um {other}.|Letzte Woche betraf es {other}, jetzt {mine}.|Nicht um {other}, sondern um "
    "{mine} geht es mir.|Sie schreiben über {other}, meine Frage betrifft {mine}.|Meine Frage betraf {mine}, Ihre "
    "Antwort {other}.",
}
"""Both matters in one sentence; the order and the negation say which one counts."""
ASIDES = {
    "en": "Thank you for your quick help with {other} last time.|I know that {other} is a different matter.|Nothing "
    "is wrong with {other}.|My colleague has already written to you about {other}.|{other} can wait.|I have read your "
    "page on {other}, it does not help.|I have been a customer for {years} years.|I hope this is the right place.",
    "de": "Danke für die schnelle Hilfe damals, es ging um {other}.|Ich weiß, für {other} sind andere zuständig.|Für "
    "{other} brauche ich nichts.|Meine Kollegin hat Ihnen schon über {other} geschrieben.|Um {other} geht es ein "
    "andermal.|Ihre Seite über {other} hilft mir nicht.|Ich bin seit {years} Jahren Kunde.|Hoffentlich bin ich hier "
    "richtig.",
}
OPENINGS = {
    "en": "Hello,|Good morning,|Dear team,|Hi there,|To whom it may concern,|",
    "de": "Guten Tag,|Hallo,|Sehr geehrte Damen und Herren,|Moin,|Liebes Team,|",
}
CLOSINGS = {
    "en": "Kind regards, {name}|Thanks, {name}|Please call me back.|Best, {name}|",
    "de": "Mit freundlichen Grüßen, {name}|Danke, {name}|Bitte rufen Sie mich zurück.|Viele Grüße, {name}|",
}
SUBJECTS = {
    "en": "Question|Order {number}|Urgent|Please help|{product}|Your message of {day}|Complaint",
    "de": "Frage|Bestellung {number}|Dringend|Bitte um Hilfe|{product}|Ihre Nachricht vom {day}|Beschwerde",
}
PRODUCTS = {
    "en": 'coffee maker|headphones|bike lamp|office chair|rucksack|router|e-reader|blender|"Nordwind" jacket|printer',
    "de": 'die Uhr|das Headset|die Lampe|das Rad|die Tasche|das Modem|das Radio|die Maus|die Jacke "Nordwind"|das Sofa',
}
PARTS = {"en": "handle|display|cable|lid|battery|hinge|button", "de": "Griff|Display|Kabel|Deckel|Akku|Scharnier|Taste"}
NAMES = "A. Jansen|Müller & Söhne, Köln|O'Brien|J. Weiß|Sofía Núñez|Smith, Ltd.|Łukasz Nowak|K. Schröder|Dr. M. Osei"
GERMAN, CONTRAST, ASIDE, PARAGRAPHS, WRONG = 1 / 3, 0.24, 0.5, 0.4, 0.04
"""Shares of the tickets: German, decided by a contrast, with an aside, with line breaks, with a wrong label."""


def pick(choices: str) -> str:
    """One of the words or sentences between the bars."""
    return random.choice(choices.split("|"))


def ticket(number: int, category: str) -> dict[str, object]:
    """One ticket with the right label."""
    language = "de" if random.random() < GERMAN else "en"
    created = datetime.datetime(2025, 1, 1, 7) + datetime.timedelta(minutes=number * 97 + random.randrange(90))
    other = random.choice([one for one in WEIGHTS if one != category])
    name = pick(NAMES)

    def filled(choices: str) -> str:
        text = pick(choices)
        for _ in range(2):  # topics have words to fill in too
            text = text.format(
                mine=pick(TOPICS[language][category]),
                other=pick(TOPICS[language][other]),
                product=pick(PRODUCTS[language]),
                part=pick(PARTS[language]),
                amount=f"{random.randrange(5, 400)}{',' if language == 'de' else '.'}{random.randrange(100):02} €",
                number=f"B-{random.randrange(10**5, 10**6)}",
                day=(created.date() + datetime.timedelta(days=random.randrange(-20, 20))).strftime("%d.%m.%Y"),
                code=random.randrange(400, 600),
                years=random.randrange(2, 15),
                name=name,
            )
        return text

    sentences = [filled(CONTRASTS[language] if random.random() < CONTRAST else ASKS[language][category])]
    while random.random() < ASIDE and len(sentences) < 3:
        sentences.insert(random.randrange(len(sentences) + 1), filled(ASIDES[language]))
    sentences = [filled(OPENINGS[language]), *sentences, filled(CLOSINGS[language])]
    between = random.choice(["\n", "\n\n"]) if random.random() < PARAGRAPHS else " "
    return {
        "id": f"T{number + 1:05}",
        "created": created.isoformat(sep=" "),
        "customer": name,
        "language": language,
        "subject": filled(SUBJECTS[language]),
        "message": between.join(filter(None, (sentence[:1].upper() + sentence[1:] for sentence in sentences))),
        "category": category,
    }


def write(path: str, rows: list[dict[str, object]]) -> None:
    """A CSV file with a header line."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Make the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="CSV file to write")
    parser.add_argument("--planted", default="", help="CSV file for the ids of the wrong labels, with the right ones")
    parser.add_argument("--tickets", type=int, default=3000, help="how many, 3000 by default")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    random.seed(settings.seed)
    categories = random.choices([*WEIGHTS], [*WEIGHTS.values()], k=settings.tickets)
    rows = [ticket(number, category) for number, category in enumerate(categories)]
    planted = []
    for row in random.sample(rows, round(WRONG * len(rows))):
        planted.append({"id": row["id"], "category": row["category"]})
        others = {one: weight for one, weight in WEIGHTS.items() if one != row["category"]}
        (row["category"],) = random.choices([*others], [*others.values()])
    write(settings.output, rows)
    if settings.planted:
        write(settings.planted, planted)


if __name__ == "__main__":
    main()
