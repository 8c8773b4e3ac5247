{{/* The agent's file on edge hosts. Argument: the root. */}}
{{- define "edgefarm.agentFiles" -}}
agent.yaml: |
  network:
    enabled: true
    abbotExec: {{ toJson .Values.agent.abbotExec }}
  containers: {{ .Values.agent.containers }}
{{- end }}

{{/* The files of a gateway: the agent's, and abbot's. Argument: the root. */}}
{{- define "edgefarm.gatewayFiles" -}}
agent.yaml: |
  network:
    enabled: true
    abbotExec: [python, -m, abbot, -c, /etc/edgefarm/abbot.yaml, process]
abbot.yaml: |
  dataDir: /var/lib/abbot
  socket: /run/abbot/abbot.sock
  logLevel: {{ .Values.gateway.logLevel }}
  forwarding: true
{{- end }}

{{/* The agent's container. Argument: dict root, values (of agent or gateway). */}}
{{- define "edgefarm.agentContainer" -}}
name: agent
image: {{ include "edgefarm.image" (dict "root" .root "image" .values.image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [python, -m, agent]
env:
  {{- include "edgefarm.environment" (dict "own" (include "edgefarm.agentEnvironment" .) "extra" .values.extraEnv) | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: 3590, host: 127.0.0.1}
  periodSeconds: 20
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: 3590, host: 127.0.0.1}
  periodSeconds: 5
  timeoutSeconds: 5
resources:
  {{- toYaml .root.Values.agent.resources | nindent 2 }}
# Root for abbot's socket only.
securityContext:
  runAsUser: 0
  {{- include "edgefarm.containerSecurity" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/* The tokens by which an agent shows itself to Vault, and its node to the reconciler. Argument: the root. */}}
{{- define "edgefarm.agentTokens" -}}
name: tokens
projected:
  sources:
    - serviceAccountToken: {path: token, audience: {{ .Values.vault.audience | quote }}, expirationSeconds: 3600}
    - serviceAccountToken: {path: agent-token, audience: edgefarm-network-agent, expirationSeconds: 3600}
{{- end }}

{{/* What an agent is told at start. Argument: dict root, values (of agent or gateway). */}}
{{- define "edgefarm.agentEnvironment" -}}
- {name: EDGEFARM_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: EDGEFARM_SERVICE_ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
- {name: EDGEFARM_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
{{ include "edgefarm.vaultEnvironment" .root }}
{{- if include "edgefarm.hasAuthority" .root }}
- {name: EDGEFARM_CA_BUNDLE, valueFrom: {configMapKeyRef: {name: network-ca, key: ca.crt}}}
{{- end }}
- {name: EDGEFARM_TOKEN_FILE, value: /var/run/secrets/edgefarm.io/token}
- {name: EDGEFARM_AGENT_TOKEN_FILE, value: /var/run/secrets/edgefarm.io/agent-token}
- {name: EDGEFARM_AGENT_CONFIG, value: /etc/edgefarm/agent.yaml}
# Not the pod's address, which is the host's: who else can reach that?
- {name: EDGEFARM_HEALTH_HOST, value: 127.0.0.1}
- {name: EDGEFARM_HEALTH_PORT, value: "3590"}
- {name: EDGEFARM_LOG_LEVEL, value: {{ .values.logLevel }}}
{{- end }}
