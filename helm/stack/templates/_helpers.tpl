{{/*
The gateway chart's context, with the configuration that this chart completes.
Returns JSON of its values; see stack.gatewayValues for their use.
*/}}
{{- define "stack.gatewayValues" -}}
{{- $values := deepCopy .Subcharts.gateway.Values -}}
{{- $added := include "stack.added" . | fromYaml -}}
{{- range list "url" "urls" "dns" "kubernetes" -}}
{{- if hasKey (dig "engines" "default" dict $values.config) . -}}{{- $_ := unset $added.engines.default "dns" -}}{{- end -}}
{{- end -}}
{{- $_ := set $values "config" (mergeOverwrite $added $values.config) -}}
{{- $_ := set $values "configMap" (dict "create" true "name" $values.configMap.name) -}}
{{- toJson $values -}}
{{- end -}}

{{/* What the engine adds to the gateway's configuration. */}}
{{- define "stack.added" -}}
{{- $engine := .Subcharts.engine -}}
{{- $model := $engine.Values.model -}}
engines:
  default:
    dns:
      name: {{ include "engine.fullname" $engine }}
      port: {{ $engine.Values.port }}
models:
  {{ $model | quote }}:
    engine: default
    family: {{ include "stack.family" . }}
    modalities: {{ include "stack.modalities" . }}
    max_model_len: {{ include "stack.context" . }}
  {{- range $engine.Values.modelAliases }}
  {{ . | quote }}:
    targets: [{model: {{ $model | quote }}}]
  {{- end }}
{{- end -}}

{{/* The Gemma that a name is of, in small letters, such as gemma-4-26b-a4b; empty where the name does not tell. */}}
{{- define "stack.gemma" -}}
{{- $values := .Subcharts.engine.Values -}}
{{- $pattern := "gemma-(3n|3|4)-(26b-a4b|e2b|e4b|270m|1b|4b|12b|27b|26b|31b)" -}}
{{- regexFind $pattern (printf "%s %s" $values.model $values.modelArtifacts.uri | lower) -}}
{{- end -}}

{{- define "stack.family" -}}
{{- $told := regexFind "^gemma-(3n|3|4)" (include "stack.gemma" .) | replace "-" "" -}}
{{- .Values.model.family | default $told -}}
{{- end -}}

{{/* A JSON list. As gateway.engine.gemmas has it; a test compares. */}}
{{- define "stack.modalities" -}}
{{- $gemma := include "stack.gemma" . -}}
{{- $found := list "text" -}}
{{- if not (has $gemma (list "gemma-3-270m" "gemma-3-1b")) -}}{{- $found = append $found "image" -}}{{- end -}}
{{- if regexMatch "^gemma-3n|^gemma-4-(e2b|e4b|12b)" $gemma -}}{{- $found = append $found "audio" -}}{{- end -}}
{{- if hasPrefix "gemma-4" $gemma -}}{{- $found = append $found "video" -}}{{- end -}}
{{- .Values.model.modalities | default $found | toJson -}}
{{- end -}}

{{/* Tokens of context: what the engine is told, or else 32768, which every preset of a Gemma serves. */}}
{{- define "stack.context" -}}
{{- $args := .Subcharts.engine.Values.args -}}
{{- $told := index $args "max-model-len" | default (index $args "max_model_len") | default 32768 | toString -}}
{{- regexMatch "^[0-9]+$" $told | ternary $told "32768" -}}
{{- end -}}
