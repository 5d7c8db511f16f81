{{- define "gateway.notes" -}}
{{- $name := include "gateway.fullname" . -}}
{{- $port := .Values.service.port -}}
{{ .Chart.Name }} {{ .Chart.AppVersion }} is in namespace {{ .Release.Namespace }}, as {{ $name }}.

{{ with .Values.ingress }}{{ if .enabled -}}
Clients reach it at http{{ if .tls }}s{{ end }}://{{ first .hosts }}/v1
{{ end }}{{ end -}}
Within the cluster: http://{{ $name }}.{{ .Release.Namespace }}.svc:{{ $port }}/v1
{{ if .Values.configMap.create }}
Models: {{ keys .Values.config.models | sortAlpha | join ", " }}
{{ end }}
{{- if eq .Values.keys.source "generated" }}
A key was made for you. It may do everything; docs/keys.md tells how to make others.

  KEY=$(kubectl get secret -n {{ .Release.Namespace }} {{ include "gateway.keysName" . }} -o jsonpath='{.data.key}' | base64 -d)
{{ end }}
Ask it from here{{ if ne .Values.keys.source "generated" }}, with a key or token of yours as KEY{{ end }}:

  kubectl port-forward -n {{ .Release.Namespace }} service/{{ $name }} 8000:{{ $port }} &
  curl --retry 5 --retry-connrefused -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/v1/models

Whether all works:  helm test {{ .Release.Name }} -n {{ .Release.Namespace }} --logs
{{- end -}}
