{{/* The egress rule to the cluster's DNS. */}}
{{- define "edgefarm.dnsEgress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}

{{/* The egress rule to the API server, at any address. Argument: the root. */}}
{{- define "edgefarm.apiServerEgress" -}}
- ports:
    {{- range .Values.networkPolicies.apiServerPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{/* The port of a URL. Argument: dict url, default. */}}
{{- define "edgefarm.portOf" -}}
{{- $host := (urlParse .url).host -}}
{{- if regexMatch ":[0-9]+$" $host }}{{ regexFind "[0-9]+$" $host }}{{ else }}{{ .default }}{{ end -}}
{{- end }}
