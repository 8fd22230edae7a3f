"""What the generated users say and ask, in several languages. Each slot: how it is told, how changed, how asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """`{}` stands for a value. changed: empty where it does not change. asked: in other words than told, mostly."""

    told: str
    changed: str
    asked: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phrases:
    slots: tuple[Slot, ...]
    chatter: tuple[str, ...]
    replies: tuple[str, ...]


CITIES = ("Bergen", "Lyon", "Porto", "Dresden", "Turin", "Gdansk", "Malmo", "Utrecht")
NAMES = ("Bruno", "Coco", "Mila", "Rex", "Luna", "Simba", "Nala", "Otto")

PHRASES = {
    "en": Phrases(
        (
            Slot("I live in {} with my family.", "We have moved, our home is in {} now.", "Which town do I live in?", CITIES),
            Slot("My dog is called {} and barks at everyone.", "", "What is my dog's name?", NAMES),
            Slot("I work as a {} these days.", "I changed jobs and work as a {} now.", "What do I work as?",
                 ("nurse", "carpenter", "teacher", "baker", "pilot", "tailor")),
            Slot("I can't eat {}, they make me ill.", "", "Which foods can't I eat?",
                 ("walnuts", "oysters", "peanuts", "shrimps", "almonds")),
            Slot("My sister is getting married in {}.", "", "Where is my sister's wedding, where does she get married?", CITIES),
        ),
        ("The train was late again this morning.", "It has been raining since Monday.", "I slept badly last night.",
         "The coffee machine at the office broke down.", "We watched a film about whales.", "Traffic was terrible.",
         "I baked bread on Sunday and it turned out well.", "The neighbours are renovating their kitchen."),
        ("I see, that sounds like quite a day.", "How did that make you feel?", "Thanks for telling me!",
         "Would you like to talk about something else?", "That must have taken a while."),
    ),
    "de": Phrases(
        (
            Slot("Ich wohne mit meiner Familie in {}.", "Wir sind umgezogen und wohnen jetzt in {}.", "In welcher Stadt wohne ich?", CITIES),
            Slot("Mein Hund heißt {} und bellt alle an.", "", "Wie heißt mein Hund?", NAMES),
            Slot("Ich arbeite zurzeit als {}.", "Ich habe gewechselt und arbeite jetzt als {}.", "Als was arbeite ich?",
                 ("Krankenpfleger", "Schreiner", "Lehrerin", "Bäckerin", "Pilot")),
            Slot("Ich vertrage keine {}.", "", "Was vertrage ich nicht beim Essen?", ("Walnüsse", "Austern", "Erdnüsse", "Garnelen")),
        ),
        ("Der Zug hatte heute wieder Verspätung.", "Seit Montag regnet es.", "Ich habe schlecht geschlafen.",
         "Wir haben einen Film über Wale gesehen.", "Am Sonntag habe ich Brot gebacken.", "Die Nachbarn bauen ihre Küche um."),
        ("Das klingt nach einem langen Tag.", "Danke, dass du mir das erzählst!", "Möchtest du über etwas anderes reden?"),
    ),
    "fr": Phrases(
        (
            Slot("J'habite à {} avec ma famille.", "Nous avons déménagé, j'habite maintenant à {}.", "Dans quelle ville est-ce que j'habite ?", CITIES),
            Slot("Mon chien s'appelle {} et il aboie tout le temps.", "", "Comment s'appelle mon chien ?", NAMES),
            Slot("Je travaille comme {} en ce moment.", "J'ai changé de métier, je travaille comme {}.", "Je travaille comme quoi ?",
                 ("infirmière", "menuisier", "boulangère", "pilote", "couturier")),
            Slot("Je suis allergique aux {}.", "", "À quoi suis-je allergique ?", ("noix", "huîtres", "cacahuètes", "crevettes")),
        ),
        ("Le train était encore en retard ce matin.", "Il pleut depuis lundi.", "J'ai mal dormi cette nuit.",
         "Nous avons vu un film sur les baleines.", "J'ai fait du pain dimanche."),
        ("Je vois, quelle journée.", "Merci de me le raconter !", "Voulez-vous parler d'autre chose ?"),
    ),
    "ja": Phrases(
        (
            Slot("家族と{}に住んでいます。", "引っ越して、今は{}に住んでいます。", "私はどこに住んでいますか？", ("横浜", "札幌", "福岡", "京都", "仙台")),
            Slot("犬の名前は{}で、よく吠えます。", "", "私の犬の名前は何ですか？", ("コロ", "ハチ", "モモ", "ポチ")),
            Slot("今は{}として働いています。", "転職して、{}として働き始めました。", "私は何の仕事で働いていますか？", ("看護師", "大工", "教師", "運転手")),
        ),
        ("今朝は電車がまた遅れました。", "月曜日から雨が降っています。", "昨日はよく眠れませんでした。", "日曜日にパンを焼きました。"),
        ("そうですか、大変でしたね。", "教えてくれてありがとう。"),
    ),
}  # fmt: skip

# Facts about oneself, five to a language, each with a question.
OWN_FACTS = {
    "de": (
        ("Ich arbeite seit März als Krankenschwester in Hamburg.", "In welcher Stadt arbeite ich?"),
        ("Mein Hund heißt Bruno und ist drei Jahre alt.", "Wie heißt mein Hund?"),
        ("Ich vertrage keine Nüsse.", "Welche Lebensmittel vertrage ich nicht?"),
        ("Am liebsten fahre ich mit dem Fahrrad zur Arbeit.", "Womit fahre ich am liebsten?"),
        ("Meine Schwester Lena wohnt in Wien.", "Wo wohnt meine Schwester?"),
    ),
    "fr": (
        ("Je travaille comme infirmière à Lyon depuis mars.", "Dans quelle ville est-ce que je travaille ?"),
        ("Mon chien s'appelle Bruno et il a trois ans.", "Comment s'appelle mon chien ?"),
        ("Je suis allergique aux noix.", "À quoi suis-je allergique ?"),
        ("Je préfère aller au bureau à vélo.", "Comment est-ce que je vais au travail ?"),
        ("Ma sœur Léna habite à Vienne.", "Où habite ma sœur ?"),
    ),
    "es": (
        ("Trabajo como enfermera en Sevilla desde marzo.", "¿En qué ciudad trabajo?"),
        ("Mi perro se llama Bruno y tiene tres años.", "¿Cómo se llama mi perro?"),
        ("Soy alérgica a las nueces.", "¿A qué tengo alergia?"),
        ("Prefiero ir a la oficina en bicicleta.", "¿Cómo voy al trabajo?"),
        ("Mi hermana Lena vive en Viena.", "¿Dónde vive mi hermana?"),
    ),
    "zh": (
        ("我三月开始在上海当护士。", "我在哪个城市工作？"),
        ("我的狗叫布鲁诺，三岁了。", "我的狗叫什么名字？"),
        ("我对坚果过敏。", "我对什么过敏？"),
        ("我喜欢骑自行车上班。", "我怎么去上班？"),
        ("我姐姐丽娜住在维也纳。", "我姐姐住在哪里？"),
    ),
    "ja": (
        ("三月から大阪で看護師として働いています。", "私はどの町で働いていますか？"),
        ("私の犬の名前はブルーノで、三歳です。", "私の犬の名前は何ですか？"),
        ("ナッツにアレルギーがあります。", "私は何のアレルギーですか？"),
        ("会社には自転車で行くのが好きです。", "会社へはどうやって行きますか？"),
        ("姉のレナはウィーンに住んでいます。", "姉はどこに住んでいますか？"),
    ),
    "ru": (
        ("С марта я работаю медсестрой в Казани.", "В каком городе я работаю?"),
        ("Мою собаку зовут Бруно, ей три года.", "Как зовут мою собаку?"),
        ("У меня аллергия на орехи.", "На что у меня аллергия?"),
        ("Я люблю ездить на работу на велосипеде.", "На чём я езжу на работу?"),
        ("Моя сестра Лена живёт в Вене.", "Где живёт моя сестра?"),
    ),
    "ar": (
        ("أعمل ممرضة في القاهرة منذ مارس.", "في أي مدينة أعمل؟"),
        ("كلبي اسمه برونو وعمره ثلاث سنوات.", "ما اسم كلبي؟"),
        ("عندي حساسية من المكسرات.", "من أي شيء عندي حساسية؟"),
        ("أحب الذهاب إلى العمل بالدراجة.", "كيف أذهب إلى العمل؟"),
        ("أختي لينا تسكن في فيينا.", "أين تسكن أختي؟"),
    ),
    "pt": (
        ("Trabalho como enfermeira no Porto desde março.", "Em que cidade eu trabalho?"),
        ("Meu cachorro se chama Bruno e tem três anos.", "Como se chama meu cachorro?"),
        ("Sou alérgica a nozes.", "A que eu tenho alergia?"),
        ("Prefiro ir ao escritório de bicicleta.", "Como eu vou para o trabalho?"),
        ("Minha irmã Lena mora em Viena.", "Onde mora minha irmã?"),
    ),
}
