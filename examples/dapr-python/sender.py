"""Posts a temperature to Dapr on localhost every second."""

import json
import os
import random
import time
import urllib.request

URL = os.environ["DAPR_HTTP_ENDPOINT"] + "/v1.0/publish/network/temperature.room"


def main() -> None:
    """Send for ever; what Dapr did not take is sent again."""
    while True:
        reading = {"value": round(random.gauss(21, 1), 1), "from": os.environ["POD"]}
        request = urllib.request.Request(URL, json.dumps(reading).encode(), {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError as error:  # HTTPError is one, too: Dapr refused
            print(f"not sent: {error}", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
