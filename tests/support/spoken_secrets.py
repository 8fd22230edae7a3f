"""Secrets as people tell or paste them: keys of services, connections, cards, passwords in many languages."""

from __future__ import annotations

import random

_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
# What is said, with the secret between « and »; {} stands for so many random characters of the kind that follows.
_TOLD = (
    "My database is postgres://app:«hunter2»@db.example.com/x",
    "I use redis://:«s3cr3t»@cache:6379/0",
    "I use mongodb+srv://ada:«Winter2024»@cluster0.mongodb.net",
    "I connect with Server=db;Database=x;User Id=sa;Password=«Hunter2!»;",
    "I connect with host=db user=app password=«hunter2» dbname=x",
    "I need DATABASE_PASSWORD=«correct-horse»",
    "I need AWS_SECRET_ACCESS_KEY=«wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
    "I need DB_PASS: «hunter22»",
    'I like {{"password": "«hunter22»"}}',
    "I like curl -u ada:«hunter2» https://example.com",
    "My key is -----BEGIN RSA PRIVATE KEY----- «MIIEabc» -----END RSA PRIVATE KEY-----",
    "I live in Oslo and my card is «4111 1111 1111 1111»",
    "I live in Oslo and my card is 4111-1111-1111-1111, cvv «123»",
    "My card is «3782 822463 10005»",
    "My card is «4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1»",
    "My IBAN is «GB82 WEST 1234 5698 7654 32»",
    "My iban is «gb82west12345698765432»",
    "My IBAN is «FR14 2004 1010 0505 0001 3M02 606»",
    "I need sk-proj-«{40}» to work",
    "I need sk-ant-api03-«{40}» to work",
    "I need sk_live_«{24}» to work",
    "I need whsec_«{32}» to work",
    "I need gsk_«{40}» to work",
    "I need xai-«{48}» to work",
    "I need GOCSPX-«{28}» to work",
    "I need dckr_pat_«{27}» to work",
    "I need lin_api_«{40}» to work",
    "I need pplx-«{48}» to work",
    "I need github_pat_«{40}» to work",
    "I need glpat-«{20}» to work",
    "I need npm_«{36}» to work",
    "I need hvs.«{24}» to work",
    "I need eyJhbGciOiJIUzI1NiJ9.«eyJzdWIiOiIxIn0».abc-123_d",
    "I send Authorization: Bearer «{20}»",
    "I use https://hooks.slack.com/services/T00000000/B00000000/«{24}»",
    "I live in Rome and my password's «hunter2»",
    "I live in Rome and the password for my mail is «sunshine»",
    "Remember that my password: «correct horse battery staple»",
    "Remember that my passphrase is «correct horse battery»",
    "Remember my seed phrase: «abandon ability able about above absent absorb abstract absurd abuse access accident»",
    "Remember that my login is ada / «hunter2»",
    "Remember: login: ada, pw: «hunter2»",
    "Ich wohne in Rom und mein Passwort ist «Sommer2024»",
    "Ich wohne in Rom und das Passwort fürs WLAN ist «Katze»",
    "Ich wohne in Rom und meine PIN ist «4321»",
    "Ich wohne in Rom und meine Geheimzahl ist «4321»",
    "J'habite à Rome et mon mot de passe est «soleil»",
    "J'habite à Rome et le mot de passe du wifi est «chaton»",
    "Vivo en Roma y mi contraseña es «verano»",
    "Vivo en Roma y la clave del wifi es «verano24»",
    "Moro em Roma e a senha do wifi é «gatinho»",
    "Vivo a Roma e la password del wifi è «gattino»",
    "Я живу в Риме, пароль от почты: «котик»",
    "Я живу в Риме, мой пароль — «лето»",
    "我住在北京，我的密码是«夏天2024»",  # noqa: RUF001
    "東京に住んでいます。私のパスワードは«neko12»です",
    "أعيش في القاهرة و كلمة السر هي «صيف2024»",
    "Ik woon in Rome, mijn wachtwoord is «zomer»",
    "Mieszkam w Rzymie, moje hasło to «lato2024»",
    "Jag bor i Rom, mitt lösenord är «sommar»",
    "Roma'da yaşıyorum, şifrem «yaz2024»",  # noqa: RUF001
    "제 비밀번호는 «여름2024»",
)


def told_secrets(seed: int) -> list[tuple[str, str]]:
    """Each sentence with the secret that it tells."""
    rng = random.Random(seed)
    told = []
    for sentence in _TOLD:
        before, _, rest = sentence.partition("«")
        secret, _, after = rest.partition("»")
        if secret.startswith("{"):
            secret = _random(rng, int(secret.strip("{}")))
        told.append((before.replace("{{", "{") + secret + after.replace("}}", "}"), secret))
    return told


def _random(rng: random.Random, length: int) -> str:
    """Letters and digits, with at least one digit: nearly every real key has one."""
    return "".join(rng.choice(_LETTERS) for _ in range(length - 1)) + rng.choice("23456789")
