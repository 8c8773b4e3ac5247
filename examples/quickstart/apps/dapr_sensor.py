"""Publishes a rising number on `reading.dapr` through Dapr's HTTP API: only localhost, no credentials."""

import json
import os
import time
import urllib.error
import urllib.request

URL = f"{os.environ['DAPR_HTTP_ENDPOINT']}/v1.0/publish/network/reading.dapr"


def publish(number: int) -> None:
    """Raise OSError unless Dapr has stored the message."""
    request = urllib.request.Request(URL, json.dumps({"number": number}).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=5).close()


def main() -> None:
    """Publish for ever; a number that was refused is sent again."""
    number = 0
    while True:
        try:
            publish(number)
            number += 1
        except urllib.error.HTTPError as error:
            print(f"refused: {error.code} {error.read().decode(errors='replace')[:200]}", flush=True)
            time.sleep(0.5)
        except OSError as error:
            print(f"no answer: {error}", flush=True)
            time.sleep(0.5)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
