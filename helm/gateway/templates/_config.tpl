{{/*
The configuration as the gateway reads it: `config` as it stands, and what only the chart can know.
An umbrella chart may include it with a context of its own: Chart, Release, Values.
*/}}
{{- define "gateway.config" -}}
{{- toYaml (mustMergeOverwrite (deepCopy .Values.config) (include "gateway.filled" . | fromYaml)) -}}
{{- end -}}

{{- define "gateway.filled" -}}
server:
  host: {{ .Values.listen | quote }}
  port: 8000
  admin_host: {{ .Values.listen | quote }}
  admin_port: 9090
  drain_seconds: {{ .Values.drainSeconds }}
  drain_delay_seconds: {{ .Values.drainDelaySeconds }}
{{- if ne .Values.keys.source "none" }}
auth:
  keys_directory: /etc/gemma-gateway-keys
{{- end }}
{{- $password := include "gateway.storePassword" . }}
{{- if or .Values.valkey.enabled $password }}
quotas:
  store:
    {{- if .Values.valkey.enabled }}
    url: redis://{{ include "gateway.valkeyName" . }}:6379/0
    {{- end }}
    {{- if $password }}
    password_file: /etc/gemma-gateway-store/password
    {{- end }}
{{- end }}
{{- end -}}

{{- define "gateway.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "gateway.configMapName" . }}
  labels:
    {{- include "gateway.labels" (list . "gateway") | nindent 4 }}
data:
  config.yaml: |
    {{- include "gateway.config" . | nindent 4 }}
{{- end -}}
