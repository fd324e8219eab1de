"""Secrets leave a payload wherever they stand; everything else stays as it is."""

from __future__ import annotations

import copy
import hashlib
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.payload.clean import BLANK, clean, mask_urls
from etl.payload.decode import MAX_LEVELS, JsonObject, decode, dumps
from tests.unit.strategies import properties

DOCUMENTED = Path(__file__).parents[1] / "payloads" / "documented.json"
SIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature=5ec2e7"


def hashed(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def test_the_documented_persona_loses_only_the_signature():
    persona: Any = decode(DOCUMENTED.read_bytes()).value
    expected = copy.deepcopy(persona)
    expected["avatar"]["videoUrl"] = persona["avatar"]["videoUrl"].partition("?")[0]
    before = copy.deepcopy(persona)
    assert clean(persona) == expected
    assert persona == before


def test_a_full_persona_keeps_every_documented_field_that_is_no_token():
    times = {"createdAt": "2026-04-20T10:00:00.000Z", "updatedAt": "2026-04-20T10:00:00.000Z"}
    persona: Any = {
        "llmId": "CUSTOMER_CLIENT_V1",
        "zeroDataRetention": True,
        "avatar": {"id": "a", "createdByOrganizationId": "x", "activeVersion": "v1", **times},
        "voice": {"providerVoiceId": "v", "providerModelId": "m", "isZdr": False, **times},
        "tools": [
            {
                "id": "t", "name": "get_password_hint", "type": "SERVER_WEBHOOK", "usageCount": 3,
                "config": {"url": "https://x.example/hook?page=2", "method": "POST"}, **times,
            }
        ],
        "knowledge": [{"id": "k", "documentCount": 3, **times}],
        "shareLinks": [
            {
                "id": "s", "token": "tok-1", "type": "LINK", "expiresAt": None, "usageLimit": 5,
                "usageCount": 1, "allowedOrigins": ["https://x.example"], "isPrimary": True,
            }
        ],
        "primaryShareLink": {"token": "tok-1", "enabled": True},
        "voiceDetectionOptions": {"endOfSpeechSensitivity": 0.5},
        "voiceGenerationOptions": {"stability": 0.5, "model": "m", "emotion": "calm"},
    }  # fmt: skip
    expected = copy.deepcopy(persona)
    expected["shareLinks"][0]["token"] = hashed("tok-1")
    expected["primaryShareLink"]["token"] = hashed("tok-1")
    assert clean(persona) == expected


SECRET_NAMES = """
    apiKey api_key api-key APIKey apikey API_KEY xApiKey x-api-key X-API-KEY apiKey2 apiKeys
    clientSecret client_secret clientsecret CLIENT_SECRET secret secrets secretKey secretValue
    Authorization authorization auth authHeader authorizationHeader proxyAuthorization bearer
    password passwd passWord userPassword password_v2 pwd passphrase dbPass smtp_pass dbpassword
    token Token accessToken refresh_token idToken OAuthToken oauth2Token tokenValue bearerToken
    accessTokens sessionToken csrf_token shareToken ACCESS_TOKEN accesstoken ToKeN githubtoken
    privateKey private_key privatekey signingKey webhookSecret encryptionKey accessKey
    secretAccessKey accessKeyId openaiKey ELEVENLABS_API_KEY subscription-key serviceAccountKey
    sessionKey credential credentials awsCredentials cookie cookies setCookie Set-Cookie signature
    webhookSignature x-hub-signature-256 connectionString jwt hmac sasToken tokenHash
    pass PASS dsn databaseDsn connection_strings accessCode gpgKey oauth OAuth2 api.key api_key_2
""".split()  # noqa: SIM905
ORDINARY_NAMES = """
    maxTokens max_tokens tokens tokenizer tokenized tokenCount tokenLimit tokenBudget token_usage
    inputTokens stopToken eosToken costPerToken tokenUrl tokenType tokenExpiresAt authType authUrl
    key keys keyName keyboard keyboardShortcuts keywords monkey primaryKey publicKey foreignKey
    objectKey hotKey secretary secretName author authored authority authenticity passwordless
    passwordPolicy passwordRequired passenger boardingPass compass signatureMove signatureStyle
    cookieBanner cookiePolicy credentialsUpdatedAt apiKeyName session sessionId code pin id
    passThrough bypass passRate dsnName oauthScopes accessCodeLength primaryKeyName zipCode
    enableAudioPassthrough headerStyle headersVisible query
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_value_under_a_secret_sounding_name_is_blanked(name):
    assert clean({name: "hunter2", "x": {name: 1234}}) == {name: BLANK, "x": {name: BLANK}}
    assert clean({name: ["hunter2", ["x"], 0.5]}) == {name: [BLANK, [BLANK], BLANK]}


@pytest.mark.parametrize("name", ORDINARY_NAMES)
def test_a_value_under_an_ordinary_name_stays(name):
    payload: Any = {name: "hunter2", "x": [{name: 1234}, {name: {"y": "z"}}]}
    assert clean(payload) == payload


@pytest.mark.parametrize(
    ("why", "payload", "cleaned"),
    [
        ("null and booleans tell only whether one is set",
         {"apiKey": None, "password": False, "hasToken": True},
         {"apiKey": None, "password": False, "hasToken": True}),
        ("an empty string is a string", {"apiKey": ""}, {"apiKey": BLANK}),
        ("an object under a secret name keeps what describes it",
         {"credentials": {"type": "basic", "username": "bob", "id": "7", "password": "x",
                          "expiresAt": "2026", "required": True, "scopes": ["read"]}},
         {"credentials": {"type": "basic", "username": "bob", "id": "7", "password": BLANK,
                          "expiresAt": "2026", "required": True, "scopes": ["read"]}}),
        ("its other members are named after what they open",
         {"secrets": {"OPENAI": "sk-1", "nested": {"x": ["y"]}, "type": {"z": "w"}}},
         {"secrets": {"OPENAI": BLANK, "nested": {"x": [BLANK]}, "type": {"z": BLANK}}}),
        ("a pair's value goes by the pair's name",
         {"vars": [{"name": "X-API-Key", "value": "k"}, {"key": "page", "value": "2"}]},
         {"vars": [{"name": "X-API-Key", "value": BLANK}, {"key": "page", "value": "2"}]}),
        ("a pair of an unknown type too",
         {"vars": [{"type": "secret", "value": {"a": "b"}, "label": "L"}]},
         {"vars": [{"type": "secret", "value": {"a": BLANK}, "label": "L"}]}),
        ("a pair's name is judged as it will be stored",
         {"name": "https://x.example/?password=1", "value": "v"},
         {"name": "https://x.example/", "value": "v"}),
        ("half of a credential is none of its descriptions",
         {"credentials": {"accessKeyId": "AKIA", "secretId": "x"}},
         {"credentials": {"accessKeyId": BLANK, "secretId": BLANK}}),
        ("a pair under a secret name keeps its name",
         {"secrets": [{"key": "OPENAI", "value": "sk-1"}]},
         {"secrets": [{"key": "OPENAI", "value": BLANK}]}),
        ("a key beside no value is no name",
         {"auth": {"type": "api_key", "key": "sk-1", "default": True}},
         {"auth": {"type": "api_key", "key": BLANK, "default": True}}),
        ("a default goes by the name, too",
         {"inputs": [{"name": "password", "type": "string", "default": "x"}]},
         {"inputs": [{"name": "password", "type": "string", "default": BLANK}]}),
        ("a URL in a key is a URL",
         {"https://x.example/a?token=1": 1, "https://x.example/a?token=2": 2, "a/b": 3},
         {"https://x.example/a": 1, "https://x.example/a~1": 2, "a/b": 3}),
        ("a long name is judged like a short one",
         {"a_" * 200 + "password": "x", "a_" * 200 + "b": "y"},
         {"a_" * 200 + "password": BLANK, "a_" * 200 + "b": "y"}),
    ],
)  # fmt: skip
def test_below_names_in_unknown_fields(why, payload, cleaned):
    assert clean(payload) == cleaned, why
    assert clean({"new": [payload]}) == {"new": [cleaned]}, why


@pytest.mark.parametrize(
    ("token", "stored"),
    [
        ("tok-é", hashed("tok-é")),
        ("", hashed("")),
        ("https://x.example/?token=1", hashed("https://x.example/?token=1")),
        (hashed("t"), hashed("t")),
        (hashed("t") + "0", hashed(hashed("t") + "0")),
        ("sha256:" + "A" * 64, hashed("sha256:" + "A" * 64)),
        (BLANK, BLANK),
        (12, hashed("12")),
        (0.5, hashed("0.5")),
        (None, None),
        ({"type": "x", "v": [1, None]}, {"type": BLANK, "v": [BLANK, None]}),
    ],
)
def test_a_share_links_token_becomes_its_hash(token, stored):
    def links(value: Any) -> Any:
        return {"shareLinks": [{"id": "a", "token": value}], "primaryShareLink": {"token": value}}

    assert clean(links(token)) == links(stored)
    assert clean({"data": [links(token)]}) == {"data": [links(stored)]}


def test_a_token_elsewhere_in_a_share_link_is_a_secret_like_any_other():
    assert clean({"shareLinks": [{"embed": {"token": "x"}, "accessToken": "y"}]}) == {
        "shareLinks": [{"embed": {"token": BLANK}, "accessToken": BLANK}]
    }


@pytest.mark.parametrize(
    ("headers", "cleaned"),
    [
        ({"X-Team": "red", "Accept": "json"}, {"X-Team": BLANK, "Accept": BLANK}),
        ({"X-Pin": 1234, "X-On": True}, {"X-Pin": BLANK, "X-On": True}),
        ({"name": "a", "value": "b"}, {"name": BLANK, "value": BLANK}),
        ({"X-Team": {"type": "a", "value": "red"}}, {"X-Team": {"type": BLANK, "value": BLANK}}),
        ({"name": "token", "value": {"type": "a"}}, {"name": BLANK, "value": {"type": BLANK}}),
        ({"X-Team": ["red", None]}, {"X-Team": [BLANK, None]}),
        ([{"name": "X-Team", "value": "red"}], [{"name": "X-Team", "value": BLANK}]),
        ([{"key": "X-Team", "value": "red"}], [{"key": "X-Team", "value": BLANK}]),
        ([{"X-Team": "red", "type": "x"}], [{"X-Team": BLANK, "type": BLANK}]),
        (["X-Team: red"], [BLANK]),
        ("X-Team: red", BLANK),
        (None, None),
    ],
)  # fmt: skip
def test_webhook_header_values_are_blanked_and_names_stay(headers, cleaned):
    for name in ("headers", "Headers", "requestHeaders", "HTTP_HEADERS", "headersList"):
        for config in ({name: headers}, {"webhook": {"deep": [{name: headers}]}}):
            tools: Any = {"tools": [{"config": config}]}
            expected = json.dumps(tools).replace(json.dumps(headers), json.dumps(cleaned))
            assert clean(tools) == json.loads(expected)
    unknown: Any = {"hook": {"url": "u", "headers": headers}}
    assert clean(unknown) == {"hook": {"url": "u", "headers": cleaned}}


@pytest.mark.parametrize(
    ("config", "cleaned"),
    [
        ({"headers": [["X-Team", "red"]]}, {"headers": [[BLANK, BLANK]]}),
        ({"customHeaders": {"X-Team": "red"}}, {"customHeaders": {"X-Team": BLANK}}),
        ({"header_map": {"X-Team": "red"}}, {"header_map": {"X-Team": BLANK}}),
        ({"headersJson": '{"X-Team":"red"}'}, {"headersJson": BLANK}),
        ({"headerValues": ["red"]}, {"headerValues": [BLANK]}),
        ({"header": {"X-Team": "red"}}, {"header": {"X-Team": BLANK}}),
        ({"header": "X-Team: red"}, {"header": BLANK}),
        ({"header": ["X-Team: red"]}, {"header": [BLANK]}),
        ({"header": 5, "headerName": "X"}, {"header": 5, "headerName": "X"}),
        ({"header": "X-Api-Key", "value": "k"}, {"header": "X-Api-Key", "value": BLANK}),
        ({"headerName": "X", "headerValue": "k"}, {"headerName": "X", "headerValue": BLANK}),
        ({"headerStyle": "bold"}, {"headerStyle": "bold"}),
    ],
)
def test_headers_in_other_shapes_are_headers(config, cleaned):
    assert clean({"tools": [{"config": config}]}) == {"tools": [{"config": cleaned}]}
    assert clean({"hook": {"url": "u", **config}}) == {"hook": {"url": "u", **cleaned}}


@pytest.mark.parametrize(
    ("query", "cleaned"),
    [
        ({"key": "k", "sig": 5, "page": 2}, {"key": BLANK, "sig": BLANK, "page": 2}),
        ([{"name": "key", "value": "k"}], [{"name": "key", "value": BLANK}]),
        ([{"key": "sig", "value": "k"}], [{"key": "sig", "value": BLANK}]),
        ([{"key": "page", "value": "k"}], [{"key": "page", "value": "k"}]),
        ({"properties": {"key": {"type": "string"}}}, {"properties": {"key": {"type": "string"}}}),
        ("the key", "the key"),
    ],
)
def test_the_parameters_of_a_requests_url_are_judged_as_those_in_one(query, cleaned):
    for name in ("query", "queryParams", "query_parameters"):
        assert clean({"tools": [{"config": {name: query}}]}) == {
            "tools": [{"config": {name: cleaned}}]
        }
        assert clean({"new": {name: query}}) == {"new": {name: query}}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ('{"apiKey": "sk-1", "n": 1}', f'{{"apiKey": "{BLANK}", "n": 1}}'),
        (' [{"password" : 1.5e3}]\n', f' [{{"password" : "{BLANK}"}}]\n'),
        ('{"a":{"token":"x\\"y\\\\"},"b":2}', f'{{"a":{{"token":"{BLANK}"}},"b":2}}'),
        ('{"secret": "x", "user": {{user}}}', f'{{"secret": "{BLANK}", "user": {{{{user}}}}}}'),
        ('{"token": "", "pwd": null, "jwt": true}', '{"token": "", "pwd": null, "jwt": true}'),
        (f'{{"token": "{BLANK}"}}', f'{{"token": "{BLANK}"}}'),
        ('{"maxTokens": 5, "a": "password"}', '{"maxTokens": 5, "a": "password"}'),
        ("client_id=a&client_secret=b&c=", f"client_id=a&client_secret={BLANK}&c="),
        ("API_KEY=abc\nPORT=80\n", f"API_KEY={BLANK}\nPORT=80\n"),
        ("Server=h;User Id=u;Password=p;", f"Server=h;User Id=u;Password={BLANK};"),
        ("host=h user=u password=p", f"host=h user=u password={BLANK}"),
        ("api_key=abc", f"api_key={BLANK}"),
        ("key=5", "key=5"),
    ],
)  # fmt: skip
def test_json_and_pairs_in_a_string_lose_what_stands_under_secret_names(text, cleaned):
    assert clean({"tools": [{"config": {"body": text}}]}) == {
        "tools": [{"config": {"body": cleaned}}]
    }
    assert clean({"new": [text]}) == {"new": [cleaned]}


@pytest.mark.parametrize(
    "text",
    [
        'Answer like {"token": "abc", "city": "Oslo"}.', 'Say {"password": "x"}!',
        "My password: hunter2", "Set api_key=abc in your settings, then call us.",
        "An AWS key looks like AKIAIOSFODNN7EXAMPLE, ours like sk-proj-abc123abc123abc123abc",
        '"token": "abc"', "{token: abc}", "{}", "[]", "a: {b} = c", "1=1",
    ],
)  # fmt: skip
def test_prose_is_left_alone_even_when_it_speaks_of_secrets(text):
    assert clean({"brain": {"systemPrompt": text}}) == {"brain": {"systemPrompt": text}}


def test_headers_that_are_not_of_http_stay():
    payload: Any = {
        "widgetConfig": {"headers": {"title": "Hello"}},
        "table": {"headers": ["a", "b"]},
    }
    assert clean(payload) == payload


def test_names_under_a_schemas_properties_are_no_secrets():
    schema: Any = {
        "type": "object",
        "required": ["password"],
        "properties": {
            "password": {"type": "string", "description": "Yours", "minLength": 8, "enum": ["a"]},
            "headers": {"type": "object", "properties": {"Authorization": {"type": "string"}}},
            "token": {"type": "object", "properties": {"value": {"type": "string"}}},
            "city": {"type": "string", "default": "Oslo", "examples": ["Rome"]},
        },
    }
    payload: Any = {"tools": [{"config": {"parameters": schema}}]}
    assert clean(payload) == payload
    expected = copy.deepcopy(payload)
    for word, value, blank in (
        ("default", "x", BLANK),
        ("const", 1, BLANK),
        ("examples", ["x"], [BLANK]),
    ):
        schema["properties"]["password"][word] = value
        expected["tools"][0]["config"]["parameters"]["properties"]["password"][word] = blank
    assert clean(payload) == expected


def test_properties_that_are_no_schema_are_judged_by_their_names():
    payload: Any = {"properties": {"apiKey": "x", "headers": {"X-Team": "red"}, "city": "Oslo"}}
    expected = {"properties": {"apiKey": BLANK, "headers": {"X-Team": BLANK}, "city": "Oslo"}}
    assert clean({"tools": [{"config": payload}]}) == {"tools": [{"config": expected}]}


@pytest.mark.parametrize(
    "query",
    [
        SIGNED, SIGNED.upper(), SIGNED.lower(),
        "X-Amz-Credential=AKIA%2F20260420", "X-Amz-Security-Token=IQo",
        "X-Goog-Algorithm=G&X-Goog-Signature=ab", "X-Goog-Credential=ab",
        "sv=2024&se=2026&sr=b&sig=ab%3D", "Expires=1&Signature=ab__&Key-Pair-Id=K1",
        "Policy=ab&Signature=c", "AWSAccessKeyId=A&Expires=1", "GoogleAccessId=a",
        "token=1", "sig=1", "signature=1", "key=1", "api_key=1", "apikey=1", "access_token=1",
        "auth=1", "password=1", "secret=1", "client_secret=1", "jwt=1", "wstoken=1", "hdnts=1",
        "a=1&token=2&b=3", "a=1;token=2", "a=1&amp;token=2", "ids[]=1&token=2", "tok%65n=1",
        "a=%26token%3D1", "to=https://y.example/?token=1", "to=https%3A%2F%2Fy.example%3Ftoken%3D1",
        "to=https%253A%252F%252Fy.example%253Ftoken%253D1", "to=https%3A%2F%2Fu%3Apw%40y.example",
        "token={{secret}}", "code=" + "c" * 40, "q=a|b&token=2", "q='x'&token=2", "token=a'),b",
        "a_" * 50 + "token=1",
    ],
)  # fmt: skip
def test_a_url_loses_a_query_that_holds_a_credential(query):
    for base in (
        "https://x.example/a/b.mp4", "HTTPS://x.example/a", "s3://bucket/a", "wss://x.example",
        "//x.example/a", "/media/a.mp4", "https://x.example:8443/a;v=1", "x.example/a",
        "https://x.example/a(1)", "https://[::1]:80/a",
    ):  # fmt: skip
        assert clean({"new": [f"{base}?{query}"]}) == {"new": [base]}
        assert clean(f"{base}?{query}#t=10") == f"{base}#t=10"
        assert clean(f"See {base}?{query} now.") == f"See {base} now."
        assert clean(f'say "{base}?{query}", <{base}?{query}>') == f'say "{base}", <{base}>'


@pytest.mark.parametrize(
    "text",
    [
        "https://x.example/a?page=2", "https://x.example/?v=abc&t=10#part",
        "https://x.example/a#b=c", "https://a.b:80,https://c.d/@me", "either/or a?token=1",
        "https://x.example/?keyword=a&authuser=0&tokens=5&policy=privacy&code=SUMMER",
        "https://medium.example/@user/post?x=1", "https://x.example:8080/@vite",
        "https://x.example/a;b=c",
        "https://{{host}}:{{port}}/@me", "https://[::1]:8080/@me?page=2",
        "//comment by me@x.example",
        "mailto:bob@x.example", "What is your key? key=5", "a?token=1", "and/or? token=1",
        "if (a/b) { c = d ? token : key=5 }", "{{user:password@example}}", "1/2 = 50%", "a//b=c",
        "https://x.example/search?q=what%20is%20a%20token", "sha256/abc=", "https://x.example?",
        "https%3A%2F%2Fx.example%3Fpage%3D2", "100%3F key%3D5", "x.example?page=2", "a.b?token=1",
        "data:image/png;base64,iVBORw0KGgo=", "https%3A%2F%2Fx.example%3A80%2F%40me",
    ],
)  # fmt: skip
def test_harmless_urls_and_text_stay(text):
    assert clean({"systemPrompt": text}) == {"systemPrompt": text}


@pytest.mark.parametrize(
    ("url", "cleaned"),
    [
        ("https://user:password@x.example/a?page=2", "https://x.example/a?page=2"),
        ("postgres://user:pw@host:5432/db", "postgres://host:5432/db"),
        ("postgresql+psycopg://user:p@ss@host/db", "postgresql+psycopg://host/db"),
        ("postgresql://user:p/ss?w#rd@host/db", "postgresql://host/db"),
        ("postgresql://user:1234@host/db?password=x", "postgresql://host/db"),
        ("https://ghp_token@github.example/x.git", "https://github.example/x.git"),
        ("https://:pw@x.example", "https://x.example"),
        ("//user:pw@x.example/a", "//x.example/a"),
        ("https://a.example/https://user:pw@x.example/", "https://a.example/https://x.example/"),
        ("https://x.example/?to=https://user:pw@y.example/", "https://x.example/?to=https://y.example/"),
        (r"https:\/\/user:pw@x.example\/a", r"https:\/\/x.example\/a"),
        ("jdbc:postgresql://host/db?user=u&password=p", "jdbc:postgresql://host/db"),
        ("https://u@x:pw@x.example/", "https://x.example/"),
        ("redis://:pw@x.example:6379/0", "redis://x.example:6379/0"),
        ("x.example?token=1", "x.example"),
        ("x.example:8080?a=1&sig=1", "x.example:8080"),
        ("https%3A%2F%2Fx.example%2Fa%3Fsig%3D1", "https%3A%2F%2Fx.example%2Fa"),
        ("https%3a%2f%2fx.example%2fa%3fsig%3d1", "https%3a%2f%2fx.example%2fa"),
        ("https%253A%252F%252Fx.example%253Fsig%253D1", "https%253A%252F%252Fx.example"),
        ("https://p.example/get/https%3A%2F%2Fx.example%3Fsig%3D1", "https://p.example/get/https%3A%2F%2Fx.example"),
        ("https%3A%2F%2Fu%3Apw%40x.example%2Fa", "https%3A%2F%2Fx.example%2Fa"),
        ("data:text/plain;base64,aGk=?token=1", "data:text/plain;base64,aGk="),
    ],
)  # fmt: skip
def test_a_url_loses_its_userinfo_whatever_its_query(url, cleaned):
    assert clean(url) == cleaned
    assert clean(f"(see {url}, or {url}).") == f"(see {cleaned}, or {cleaned})."


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see https://x.example/y?token=abc.", "see https://x.example/y."),
        ("(https://x.example/y?token=abc)", "(https://x.example/y)"),
        ("[a](https://x.example/y?token=abc), b", "[a](https://x.example/y), b"),
        ("**https://x.example/y?token=abc**!", "**https://x.example/y**!"),
        ("'https://x.example/y?token=abc'", "'https://x.example/y'"),
        ("“https://x.example/y?token=abc”", "“https://x.example/y”"),
        ("请看https://x.example/y?token=abc。然后", "请看https://x.example/y。然后"),
        ("https://a.b/?token=a,https://a.b/?page=2", "https://a.b/,https://a.b/?page=2"),
        ("https://a.b/?to=c,https://c.d/&token=e", "https://a.b/?to=c,https://c.d/"),
        ("https://x.example/y?token=a\nhttps://x.example/y?sig=b", "https://x.example/y\nhttps://x.example/y"),
        ("https://x.example/y;jsessionid=a?page=2", "https://x.example/y?page=2"),
        ("https://x.example/y?page=2#access_token=a", "https://x.example/y?page=2"),
        ("https://x.example/#/route?token=a", "https://x.example/"),
        ('{"u":"https:\\/\\/a.b\\/?c=1\\u0026token=b","v":1}', '{"u":"https:\\/\\/a.b\\/","v":1}'),
        ('{"u":"https://x.example/y?token\\u003db"}', '{"u":"https://x.example/y"}'),
        ('<a href="https://x.example/y?a=1&amp;sig=b">', '<a href="https://x.example/y">'),
        ("curl -H 'Authorization: Bearer abc123def'", f"curl -H 'Authorization: Bearer {BLANK}'"),
        ('"authorization": "Basic dXNlcjpwYXNz"', f'"authorization": "Basic {BLANK}"'),
        ("use bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln, ok", f"use bearer {BLANK}, ok"),
    ],
)  # fmt: skip
def test_secrets_inside_longer_text(text, cleaned):
    assert clean({"brain": {"systemPrompt": text}}) == {"brain": {"systemPrompt": cleaned}}


@pytest.mark.parametrize(
    "text",
    [
        "The bearer of bad news", "it is a bearer instrument2", "Bearer <token>",
        "bearer responsibilities-and-expectations",
        "Authorization: Bearer YOUR_API_KEY", "Authorization: Bearer {{api_key_1}}",
        "authorization: none required", "Basic understanding of HTML5programming",
    ],
)  # fmt: skip
def test_words_about_authorization_stay(text):
    assert clean(text) == text


def test_as_many_levels_as_decode_allows_are_cleaned_far_down_the_stack():
    payload: Any = {"apiKey": "x", "u": "https://x.example/?token=1"}
    for level in range(MAX_LEVELS - 1):
        payload = [payload] if level % 2 else {"a": payload}

    def below(frames: int) -> Any:
        return below(frames - 1) if frames else clean(payload)

    assert dumps(below(300)).count(BLANK.encode()) == 1


@pytest.mark.parametrize(
    "payload",
    [
        "https://x.example/?a=" + "%25" * 100_000,
        "https://x.example/?" + "&a=" * 100_000,
        {"aB_" * 100_000: 1},
    ],
    ids=["escapes", "parameters", "words of a name"],
)
def test_hostile_text_takes_little_memory(payload):
    tracemalloc.start()
    try:
        assert clean(payload) == payload
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_a_credential_that_is_encoded_is_found_wherever_it_stands():
    for length in range(4070, 4100):
        url = "https://x.example/?u=" + "x" * length + "%26token%3D1"
        assert clean(url) == "https://x.example/"


def test_hostile_text_takes_linear_time():
    size = 1_000_000
    pieces = [
        "a",
        "/",
        "://",
        "http://a:b/",
        "/?",
        "/=,",
        "a,",
        ",https:/",
        "u:p@",
        "/@",
        "A",
        "()",
        "bearer ",
        "::",
    ]
    texts = [piece * (size // len(piece)) + end for piece in pieces for end in ("/?token=1", "/ @")]
    texts += [
        "https://x.example/?" + piece * (size // 4) for piece in ("a&a;", "%25%", "AAAA", "?=?=")
    ]
    pieces = ['"a":"', '"a":', '\\"', "a=b ", "a=", "a b ", "%25", "%3F", "%2F%2F", "a.", '"a":1']
    texts += [f"{{{piece * (size // 4 // len(piece))}}}" for piece in pieces]
    texts += [piece * (size // 4 // len(piece)) + "?token=1 ?" for piece in pieces]
    start = time.process_time()
    for text in texts:
        clean(text)
    assert time.process_time() - start < len(texts)


PLACES = """
    shareLinks primaryShareLink token tools config headers properties name value key type url
    default webhook https://x.example/?sig=1 https://x.example/?key=2 header headersList headerValue
    query queryParams sig
""".split()  # noqa: SIM905
URL_PIECES = r"""
    https: // / \/ ? & ; # = @ : , ( ) ' " . %26 %3D %40 \u0026 \u003d { } [ ] a 80 token sig page
    é 。 https://u:p@h/ ,https://h?token=1 /?key=1 x9x9x9x9x9x9x9x9x9x9x9 h.tld %3F %3f %2F%2F %3A
    %253F %252F%252F %2540 %25 "password": "token":"x" "key":1 secret= [] {} \" \n
""".split()  # noqa: SIM905
names = st.sampled_from([*SECRET_NAMES, *ORDINARY_NAMES]) | st.sampled_from(PLACES)
url_pieces = st.sampled_from([*URL_PIECES, " ", "Bearer ", "authorization: x ", BLANK])
joined_pieces = st.lists(url_pieces, max_size=12).map("".join)
url_text = st.builds(
    "{0[0]}{1}{0[1]}".format,
    st.sampled_from([("", ""), ("", ""), ("{", "}"), ("[", " ]\n"), ("a=b&", "=c"), ("a=", "")]),
    joined_pieces,
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | url_text
    | st.sampled_from(["password", hashed("x")])
)
payloads = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@properties(1500)
@given(url_text)
@example("a=//b&token=x/y&p=w:z@c")
def test_cleaning_a_text_twice_is_cleaning_it_once(text):
    once = clean(text)
    assert clean(once) == once


@properties(500)
@given(payloads)
def test_cleaning_twice_is_cleaning_once_and_leaves_the_input_alone(payload):
    before = copy.deepcopy(payload)
    once = clean(payload)
    assert payload == before
    assert clean(once) == once


@properties(300)
@given(payloads, st.lists(st.sampled_from(SECRET_NAMES), min_size=1, max_size=3))
def test_a_secret_under_a_secret_name_never_survives(payload, path):
    for name in path:
        payload = {"other": payload, name: {"a": ["CANARY", {"b": "CANARY"}], "c": "CANARY"}}
    assert b"CANARY" not in dumps(clean(payload))


def test_bodies_that_differ_in_signatures_alone_are_masked_alike():
    body = DOCUMENTED.read_bytes()
    first = body.replace(b"X-Amz-Signature=...", SIGNED.encode())
    second = body.replace(b"X-Amz-Signature=...", SIGNED.replace("5ec2e7", "0ther").encode())
    escaped = first.replace(b"/", b"\\/").replace(b"&", b"\\u0026")
    assert first != second
    assert mask_urls(first) == mask_urls(second) != first
    assert b"5ec2e7" not in mask_urls(escaped)
    assert mask_urls(b'{"a":"b","https://x.example/?sig=1":1}').endswith(b'?sig=1":1}')
    assert mask_urls(body.replace(b"Cara", b"Sara")) != mask_urls(body)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"u":"https://x.example/?page=1"}', '{"u":"https://x.example/?page=2"}'),
        ('{"u":"https://x.example/1?token=1"}', '{"u":"https://x.example/2?token=1"}'),
        ('{"p":"See https://x.example/?token=1."}', '{"p":"See https://x.example/?token=1!"}'),
        ('{"p":"https://x.example/?token=1. x"}', '{"p":"https://x.example/?token=1: x"}'),
        ('{"u":"https://x.example/?token=1#a"}', '{"u":"https://x.example/?token=1#b"}'),
        (
            '{"shareLink":{"token":"https://x.example/?sig=1"}}',
            '{"shareLink":{"token":"https://x.example/?sig=2"}}',
        ),
        (
            '{"shareLink":{"toke\\u006e" : "https://x.example/?sig=1"}}',
            '{"shareLink":{"toke\\u006e" : "https://x.example/?sig=2"}}',
        ),
        ('{"u":"https://u:p?sig=1@x.example/1"}', '{"u":"https://u:p?sig=1@x.example/2"}'),
    ],
)  # fmt: skip
def test_what_cleaning_keeps_apart_the_mask_keeps_apart(first, second):
    assert clean(decode(first.encode()).value) != clean(decode(second.encode()).value)
    assert mask_urls(first.encode()) != mask_urls(second.encode())


signatures = st.text("ab9%/+-_~.@:?&=", max_size=6)
signed_urls = st.builds(
    "https://x.example{}{}SIGNATURE{}".format,
    url_text.filter(lambda text: '"' not in text) | st.sampled_from(["/a", "/a/b.mp4", ""]),
    st.sampled_from(["?sig=", "?a=b&token=", "?X-Amz-Date=1&X-Amz-Signature=", "?page="]),
    st.sampled_from(["", "&Expires=1", "#t=1", " and more", "."]),
)
signed_payloads = st.dictionaries(
    names | st.just("videoUrl"),
    signed_urls | st.lists(signed_urls, max_size=2) | st.dictionaries(names, signed_urls),
    max_size=3,
)


@properties(500)
@given(signed_payloads, signatures, signatures, st.booleans())
def test_bodies_that_are_masked_alike_are_cleaned_alike(payload, first, second, escaped):
    body = json.dumps(payload, ensure_ascii=escaped)
    if escaped:
        body = body.replace("&", "\\u0026").replace("/", "\\/")
    bodies = [body.replace("SIGNATURE", signature).encode() for signature in (first, second)]
    if mask_urls(bodies[0]) == mask_urls(bodies[1]):
        assert clean(decode(bodies[0]).value) == clean(decode(bodies[1]).value)


def test_very_many_keys_that_clean_alike_stay_apart_without_a_search():
    # Trying each free name in turn took minutes for these.
    payload: JsonObject = {
        f"https://x.example/a?token={number}": number for number in range(20_000)
    }
    cleaned = clean({"widgetConfig": payload})
    assert isinstance(cleaned, dict)
    assert isinstance(cleaned["widgetConfig"], dict)
    assert list(cleaned["widgetConfig"].values()) == list(range(20_000))
    assert clean(cleaned) == cleaned


def test_a_share_links_token_is_taken_out_wherever_the_payload_repeats_it():
    token = "tok_4f9a-77c1e0d2"
    payload: JsonObject = {
        "id": "11111111-2222-4333-8444-555555555555",
        "shareLinks": [{"id": token, "token": token, "shareUrl": f"https://lab/share/{token}"}],
        "embedCode": [f'<iframe src="https://x/{token}?a=1">'],
        "description": f"a{token} stays",
    }
    cleaned = clean(payload)
    assert isinstance(cleaned, dict)
    told = json.dumps({**cleaned, "shareLinks": [{**cleaned["shareLinks"][0], "id": ""}]})  # type: ignore[index, dict-item]
    assert f"share/{token}" not in told
    assert f"x/{token}" not in told
    assert BLANK in told
    assert clean(cleaned) == cleaned
    # What is no persona may be kept as well.
    assert clean([payload]) == [cleaned]


def test_many_tokens_and_much_text_come_to_an_end():
    links: list[Any] = [{"token": f"token-of-link-{n:08}"} for n in range(20_000)]
    payload: JsonObject = {"shareLinks": links, "text": "word-that-is-none " * 100_000}
    cleaned = clean(payload)
    assert isinstance(cleaned, dict)
    assert cleaned["text"] == payload["text"]
