"""How each kind of secret begins. One table, for the keys that are made and for the redaction of logs."""

KEY = "sk-"
CLIENT_SECRET = "ek_"  # noqa: S105 - a prefix; the official clients look for it
WEBHOOK_SECRET = "whsec_"  # noqa: S105 - a prefix, that of Standard Webhooks
TOKEN = "eyJ"  # noqa: S105 - a prefix: of the base64 of `{"`, with which the header of every JSON Web Token begins
KEY_SUBPROTOCOL = "openai-insecure-api-key."  # before any of these, where a browser connects
API_KEY = "api-key"  # the header, and in a browser the query, by which a client of Azure OpenAI presents any of these

KEY_SHOWN_CHARS = len(KEY) + 6  # of a key, in lists and logs: 36 of its 256 random bits
