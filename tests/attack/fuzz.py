"""`make fuzz`: a fuzzer that sees the branches of our parsers (atheris) runs them until the first fault.

python -m tests.attack.fuzz multipart --seconds 600
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

OURS = ("http", "models", "names", "xmpp", "slots", "slot_tokens", "external_slots")
with atheris.instrument_imports(include=[*(f"media_gallery.{name}" for name in OURS), "multipart", "urllib.parse"]):
    from tests.attack.targets import Parsers

FAULTS = Path(".hypothesis")
"""The folder for bytes that caused a fault, beside those of hypothesis."""
SEEDS = {
    "multipart": [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="size"\r\n\r\n1\r\n'
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''%d0%b0\r\n"
        b"Content-Type: image/png\r\n\r\n"
        b'x\r\n--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"a": 1}\r\n--b--\r\n',
    ],
    "parameters": [
        b'{"id": [1, 2], "contexts": ["file"], "date_gte": "2024-01-01", "size_lte": 5}',
        b"jid=anna@example.org&code=123456&page=2&order_by=-size&contexts[]=voice&media_type=image/*",
        b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n1\r\n--b--\r\n',
    ],
    "stanzas": [
        b"<iq type='get' from='anna@example.org/x' id='1'><request xmlns='urn:xmpp:http:upload:0' filename='a.jpg'"
        b" size='5' content-type='image/jpeg'><ephemeral xmlns='urn:xmpp:http:upload:purpose:0'"
        b" expire-before='2030-01-01T00:00:00Z'/></request></iq>",
        b"<iq type='get' from='anna@example.org/x' xml:lang='ru'><request xmlns='urn:xmpp:http:upload'>"
        b"<filename>a</filename><size>5</size><content-type>a/b</content-type></request></iq>",
        b"<iq type='get' from='a@b' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node='n'/></iq>",
    ],
    "permissions": [
        b'{"sub":"a@b","slot":"slot","filename":"name","filesize":5,"filetype":"","iat":1,"exp":2,"purpose":"profile"}',
        b"eyJhbGciOiJub25lIn0.e30.AAAA",
    ],
    "words": [b"anna@example.org/phone", "Анна@пример.рф".encode(), b"bytes=0-1", b"image/png; a=b", b"photo.jpg"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=SEEDS)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    target = getattr(Parsers(), options.target)
    FAULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[options.target]):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup(
            [
                sys.argv[0],
                corpus,
                f"-max_total_time={options.seconds}",
                "-max_len=2000",
                "-timeout=20",
                f"-artifact_prefix={FAULTS}/{options.target}-",
            ],
            lambda data: target(bytes(data)) and None,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
