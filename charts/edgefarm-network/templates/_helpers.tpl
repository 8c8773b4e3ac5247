{{/* Labels of all objects of the chart. Argument: dict root, component. */}}
{{- define "edgefarm.labels" -}}
{{ include "edgefarm.selector" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels by which the pods of a component are selected; they never change. Argument: dict root, component. */}}
{{- define "edgefarm.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image as registry/repository:tag@digest. Argument: dict root, image. */}}
{{- define "edgefarm.image" -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end -}}
{{ .image.repository }}:{{ .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Labels and annotations of a pod. Argument: dict root, component, values, checksum (of a file that is read once). */}}
{{- define "edgefarm.podMetadata" -}}
labels:
  {{- include "edgefarm.selector" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := deepCopy .values.podAnnotations }}
{{- with .checksum }}{{ $_ := set $annotations "checksum/configuration" . }}{{ end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where pods run. Argument: dict root, component, values. */}}
{{- define "edgefarm.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* How the replicas of a Deployment spread over zones and nodes. Argument: dict root, component, values. */}}
{{- define "edgefarm.spread" -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- $context := . }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "edgefarm.selector" $context | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod; the user is that of the images. */}}
{{- define "edgefarm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What it asks of a container, and more. */}}
{{- define "edgefarm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods and edge hosts find Vault. Argument: the root. */}}
{{- define "edgefarm.vaultAddress" -}}
{{- $own := printf "https://network-vault.%s.svc:8200" .Release.Namespace -}}
{{ .Values.vault.clientAddress | default .Values.vault.address | default $own | trimSuffix "/" }}
{{- end }}

{{/* Where pods find NATS, separated by commas. Argument: the root. */}}
{{- define "edgefarm.natsUrl" -}}
{{- $own := list (printf "tls://network-nats.%s.svc:4222" .Release.Namespace) -}}
{{ .Values.nats.clientUrls | default .Values.nats.urls | default $own | join "," }}
{{- end }}

{{/* Not empty when servers are verified against the ConfigMap `network-ca`, which the reconciler writes. */}}
{{- define "edgefarm.hasAuthority" -}}
{{- with .Values }}
{{- if or .vault.deploy .nats.deploy (trim .vault.caBundle) (trim .nats.caBundle) }}true{{ end }}
{{- end }}
{{- end }}

{{/* Variables by which sidecars, agents and gateways find Vault's parts. Argument: the root. */}}
{{- define "edgefarm.vaultEnvironment" -}}
- {name: EDGEFARM_VAULT_ADDR, value: {{ include "edgefarm.vaultAddress" . | quote }}}
- {name: EDGEFARM_VAULT_AUTH_MOUNT, value: {{ .Values.vault.authMount | quote }}}
- {name: EDGEFARM_VAULT_TRANSIT_MOUNT, value: {{ .Values.vault.transitMount | quote }}}
- {name: EDGEFARM_VAULT_KV_MOUNT, value: {{ .Values.vault.kvMount | quote }}}
{{- with .Values.vault.namespace }}
- {name: EDGEFARM_VAULT_NAMESPACE, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* The environment of a container: its own, and the user's, which wins. Argument: dict own (YAML), extra (list). */}}
{{- define "edgefarm.environment" -}}
{{- $replaced := list }}
{{- range .extra }}{{ $replaced = append $replaced .name }}{{ end }}
{{- range .own | fromYamlArray }}
{{- if not (has .name $replaced) }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- range .extra }}
- {{ toJson . }}
{{- end }}
{{- end }}

{{/* A map without what is empty text, list or map, as YAML: the programs' defaults hold for that. */}}
{{- define "edgefarm.pruned" -}}
{{- $result := dict }}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}
{{- with include "edgefarm.pruned" $value | fromYaml }}{{ $_ := set $result $key . }}{{ end }}
{{- else if or $value (kindIs "bool" $value) (eq (toString $value) "0") }}
{{- $_ := set $result $key $value }}
{{- end }}
{{- end }}
{{- toYaml $result }}
{{- end }}

{{/* The section of a server in the configuration, as YAML. Argument: dict root, server (its values). */}}
{{- define "edgefarm.server" -}}
{{- $server := deepCopy .server }}
{{- if .server.deploy }}
{{- $pod := $server.pod }}
{{- $_ := set $pod "imagePullSecrets" ($pod.imagePullSecrets | default .root.Values.imagePullSecrets) }}
{{- else }}
{{- $server = omit $server "image" "replicas" "storage" "auditStorage" "memoryStorage" "whenUninstalled" "hosts" "service" "pod" }}
{{- end }}
{{- $result := include "edgefarm.pruned" $server | fromYaml }}
{{- if hasKey $server "auditStorage" }}{{ $_ := set $result "auditStorage" $server.auditStorage }}{{ end }}
{{- toYaml $result }}
{{- end }}

{{/* More names and addresses in the webhook's certificate, as a YAML list. Argument: the root. */}}
{{- define "edgefarm.webhookHosts" -}}
{{- $hosts := .Values.webhook.hosts }}
{{- with .Values.webhook.url }}{{ $hosts = append $hosts (urlParse .).hostname }}{{ end }}
{{- toYaml (uniq $hosts) }}
{{- end }}

{{/* The content of config.yaml. Argument: the root. */}}
{{- define "edgefarm.configuration" -}}
{{- $values := .Values }}
{{- $hosts := include "edgefarm.webhookHosts" . | fromYamlArray }}
{{- $configuration := dict
  "vault" (include "edgefarm.server" (dict "root" . "server" $values.vault) | fromYaml)
  "nats" (include "edgefarm.server" (dict "root" . "server" $values.nats) | fromYaml)
  "credentials" $values.credentials
  "keys" $values.keys
  "webhook" (dict "issueCertificate" (not $values.webhook.certManager.enabled))
  "leaf" (dict "sidecarImage" (include "edgefarm.image" (dict "root" . "image" $values.sidecar.image)) "natsImage" $values.leaf.natsImage "imagePullSecrets" $values.imagePullSecrets)
  "streams" $values.streams
  "mesh" (include "edgefarm.pruned" $values.mesh | fromYaml)
  "resync" $values.resync
}}
{{- with $hosts }}{{ $_ := set $configuration.webhook "hosts" . }}{{ end }}
{{- toYaml $configuration }}
{{- end }}

{{/* Rules between values, which no schema can say. Argument: the root. */}}
{{- define "edgefarm.validate" -}}
{{- with .Values }}
{{- if and .vault.deploy .vault.address }}
{{- fail "vault.address does not go with vault.deploy: true: leave it empty, or set vault.deploy to false" }}
{{- end }}
{{- if not (or .vault.deploy .vault.address) }}
{{- fail "vault.address is required while vault.deploy is false: write for example https://vault.example:8200" }}
{{- end }}
{{- if and .nats.deploy .nats.urls }}
{{- fail "nats.urls do not go with nats.deploy: true: leave them empty, or set nats.deploy to false" }}
{{- end }}
{{- if not (or .nats.deploy .nats.urls) }}
{{- fail "nats.urls are required while nats.deploy is false: write for example [tls://nats.example:4222]" }}
{{- end }}
{{- range $name, $part := dict "agent" .agent "gateway" .gateway }}
{{- if and $part.enabled (not $.Values.mesh.enabled) }}
{{- fail (printf "%s.enabled needs a mesh: set mesh.enabled to true as well" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
