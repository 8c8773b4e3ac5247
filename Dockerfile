# The images of edgefarm-network, for amd64 and arm64: --target control, sidecar or examples.
# docs/images.md says how they are built, pinned by digest, described (SBOM) and signed.

# Tags say which versions were tried; releases give name@sha256:… instead.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG DAPRD_IMAGE=docker.io/daprio/daprd:1.18.3
ARG VERSION=0.1.0
ARG REVISION=unknown

FROM ${DAPRD_IMAGE} AS daprd

# An empty environment. pip stays outside of it, and so out of the images' own packages.
FROM ${PYTHON_IMAGE} AS environment
RUN ["python", "-m", "venv", "--without-pip", "/opt/edgefarm"]

FROM environment AS control-packages
COPY requirements/control.lock /tmp/requirements.lock
RUN ["python", "-m", "pip", "--python", "/opt/edgefarm/bin/python", "install", "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", "/tmp/requirements.lock"]
COPY edgefarm /opt/edgefarm/lib/python3.11/site-packages/edgefarm
COPY reconciler /opt/edgefarm/lib/python3.11/site-packages/reconciler
COPY webhook /opt/edgefarm/lib/python3.11/site-packages/webhook
COPY agent /opt/edgefarm/lib/python3.11/site-packages/agent
COPY abbot /opt/edgefarm/lib/python3.11/site-packages/abbot
# As the package's entry point would: what `abbotExec` of a gateway names.
RUN printf '%s\n' '#!/opt/edgefarm/bin/python' 'import sys' 'from abbot.__main__ import main' 'sys.exit(main())' > /opt/edgefarm/bin/abbot \
    && chmod 0755 /opt/edgefarm/bin/abbot
RUN ["python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/edgefarm/lib/python3.11/site-packages"]

FROM environment AS sidecar-packages
COPY requirements/sidecar.lock /tmp/requirements.lock
RUN ["python", "-m", "pip", "--python", "/opt/edgefarm/bin/python", "install", "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", "/tmp/requirements.lock"]
COPY edgefarm /opt/edgefarm/lib/python3.11/site-packages/edgefarm
COPY sidecar /opt/edgefarm/lib/python3.11/site-packages/sidecar
RUN ["python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/edgefarm/lib/python3.11/site-packages"]

FROM environment AS examples-packages
COPY requirements/examples.lock /tmp/requirements.lock
# nkeys is published as source only.
RUN ["python", "-m", "pip", "--python", "/opt/edgefarm/bin/python", "install", "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--no-binary", "nkeys", "--require-hashes", "--requirement", "/tmp/requirements.lock"]
COPY examples /opt/edgefarm/lib/python3.11/site-packages/examples
RUN ["python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/edgefarm/lib/python3.11/site-packages"]

# What all images have in common. Nothing is written at run time: a read-only root filesystem is enough.
FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.source="https://github.com/edgefarm/edgefarm.network" \
      org.opencontainers.image.documentation="https://github.com/edgefarm/edgefarm.network/tree/main/docs" \
      org.opencontainers.image.vendor="edgefarm" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/edgefarm/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532

FROM runtime AS examples
LABEL org.opencontainers.image.title="network-examples" \
      org.opencontainers.image.description="The example applications of edgefarm-network."
COPY --from=examples-packages /opt/edgefarm /opt/edgefarm
ENTRYPOINT ["python"]

FROM runtime AS sidecar
LABEL org.opencontainers.image.title="network-sidecar" \
      org.opencontainers.image.description="Gets, keeps and renews a pod's NATS credentials, and runs daprd."
COPY --from=daprd /daprd /daprd
COPY --from=sidecar-packages /opt/edgefarm /opt/edgefarm
ENTRYPOINT ["python", "-m", "sidecar"]

FROM runtime AS control
LABEL org.opencontainers.image.title="network-control" \
      org.opencontainers.image.description="Reconciler, webhook, node agent and gateway (abbot) of edgefarm-network."
# For gateways on nodes whose kernel has no WireGuard; the programs that abbot needs for containers are the host's.
USER 0:0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wireguard-go=0.0.20220316-* \
    && rm -rf /var/lib/apt/lists/*
USER 65532:65532
COPY --from=control-packages /opt/edgefarm /opt/edgefarm
ENTRYPOINT ["python", "-m", "reconciler"]
