"""The text of the Dapr component and of daprd's configuration. Pure; both hold JSON strings, which YAML reads as well.

Members of the component: https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-jetstream/
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from edgefarm import names
from sidecar.credentials import Credentials

#: Reloading is a feature flag before Dapr 1.18 and on by default since; saying so serves both.
CONFIGURATION: Final = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: daprd
spec:
  features:
  - name: HotReload
    enabled: true
"""


def render(credentials: Credentials, urls: Sequence[str], connection: str, since: int) -> str:
    """The pubsub component of the pod's network; a secret, because it holds the seed.

    `connection` names the NATS connection for people who look at a server. `since` (Unix seconds) is where consumers
    of streams begin: Dapr's consumers end with each connection, and one that began at "all" would deliver the whole
    stream again whenever the component is loaded, one that began at "new" would lose what came in between.
    """
    metadata = {
        "natsURL": ",".join(urls),
        "name": connection,
        "jwt": credentials.jwt,
        "seedKey": credentials.seed,
        "deliverPolicy": "time",
        "startTime": str(since),
    }
    lines = [
        "apiVersion: dapr.io/v1alpha1",
        "kind: Component",
        "metadata:",
        f"  name: {json.dumps(names.DAPR_COMPONENT)}",
        "spec:",
        "  type: pubsub.jetstream",
        "  version: v1",
        "  metadata:",
    ]
    for name, value in metadata.items():
        lines += [f"  - name: {name}", f"    value: {json.dumps(value)}"]
    return "\n".join(lines) + "\n"
