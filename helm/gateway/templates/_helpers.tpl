{{/* The chart's name, or the one that replaces it. */}}
{{- define "gateway.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What all objects are called. Room is left for suffixes, and for what a StatefulSet adds in labels of 63 characters. */}}
{{- define "gateway.fullname" -}}
{{- $name := include "gateway.name" . -}}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $both | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- define "gateway.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What pods of one kind are told apart by: it never changes, since selectors cannot. Takes (list context component). */}}
{{- define "gateway.selectorLabels" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ include "gateway.name" $context }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Takes (list context component). */}}
{{- define "gateway.labels" -}}
{{- $context := index . 0 -}}
{{ include "gateway.selectorLabels" . }}
app.kubernetes.io/part-of: gemma-gateway
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ include "gateway.chart" $context }}
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gateway.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "gateway.fullname" .) "default") -}}
{{- end -}}

{{/* Repository with digest, or else with tag. Takes (list image default-tag). */}}
{{- define "gateway.image" -}}
{{- $image := index . 0 -}}
{{- $image.repository -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ $image.tag | default (index . 1) }}{{- end -}}
{{- end -}}

{{- define "gateway.configMapName" -}}
{{- tpl .Values.configMap.name . | default (include "gateway.fullname" .) -}}
{{- end -}}

{{/* The Secret that the chart, or the External Secrets operator for it, keeps the key file in. */}}
{{- define "gateway.keysName" -}}
{{- include "gateway.fullname" . }}-keys
{{- end -}}

{{/* Where the key for `helm test` is: JSON of name and key; empty where there is none. */}}
{{- define "gateway.testKey" -}}
{{- if .Values.test.keySecret.name -}}
{{- dict "name" .Values.test.keySecret.name "key" (.Values.test.keySecret.key | default "key") | toJson -}}
{{- else if eq .Values.keys.source "generated" -}}
{{- dict "name" (include "gateway.keysName" .) "key" "key" | toJson -}}
{{- end -}}
{{- end -}}

{{- define "gateway.valkeyName" -}}
{{- include "gateway.fullname" . }}-valkey
{{- end -}}

{{/* Where the password of the store of quotas is: JSON of name and key; empty where there is none. */}}
{{- define "gateway.storePassword" -}}
{{- with .Values.valkey.passwordSecret.name -}}
{{- dict "name" . "key" ($.Values.valkey.passwordSecret.key | default "password") | toJson -}}
{{- else -}}
{{- if .Values.valkey.enabled -}}
{{- dict "name" (include "gateway.valkeyName" .) "key" "password" | toJson -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Namespaces of engines that are found by EndpointSlices: a JSON list, without doubles. */}}
{{- define "gateway.watchedNamespaces" -}}
{{- $found := list -}}
{{- range .Values.config.engines -}}
{{- with .kubernetes -}}
{{- $found = append $found (.namespace | default $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- $found | uniq | sortAlpha | toJson -}}
{{- end -}}
