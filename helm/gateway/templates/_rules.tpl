{{/* A file of rules with the objectives, and what stands before its links, as the values say. Takes (list root text). */}}
{{- define "gateway.rules" -}}
{{- $rules := index . 1 -}}
{{- with (index . 0).Values.prometheusRule -}}
{{- range $name, $share := dict "availability" .objectives.availability "first_token" .objectives.firstToken -}}
{{- $rules = regexReplaceAll (printf `(record: gemma:%s_objective\s+expr: )vector\(.*\)` $name) $rules (printf "${1}vector(%v)" $share) -}}
{{- end -}}
{{- $rules = replace "runbook_url: " (printf "runbook_url: %s" .runbookPrefix) $rules -}}
{{- replace "dashboard_url: " (printf "dashboard_url: %s" (trimSuffix "/" .grafanaUrl)) $rules -}}
{{- end -}}
{{- end -}}
