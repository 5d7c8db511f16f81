{{/* One flag of vLLM as words of a YAML list. Takes (list name value). */}}
{{- define "engine.flag" -}}
{{- $name := printf "--%s" (index . 0 | replace "_" "-") -}}
{{- $value := index . 1 -}}
{{- if kindIs "bool" $value }}
- {{ ternary $name (printf "--no-%s" (trimPrefix "--" $name)) $value | quote }}
{{- else if kindIs "slice" $value }}
- {{ $name | quote }}
{{- range $value }}
- {{ toString . | quote }}
{{- end }}
{{- else if kindIs "string" $value }}
- {{ printf "%s=%s" $name $value | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "%s=%s" $name (toJson $value) | quote }}
{{- end }}
{{- end -}}

{{/* The flags that this chart's other values stand for. */}}
{{- define "engine.ownFlags" -}}
{{- $names := prepend .Values.modelAliases .Values.model -}}
{{- $flags := dict "served-model-name" $names "tensor-parallel-size" .Values.parallelism.tensor -}}
{{- with .Values.parallelism -}}
{{- if gt (int .pipeline) 1 -}}{{- $_ := set $flags "pipeline-parallel-size" .pipeline -}}{{- end -}}
{{- if gt (int .data) 1 -}}{{- $_ := set $flags "data-parallel-size" .data -}}{{- end -}}
{{- end -}}
{{- with .Values.modelArtifacts.revision -}}{{- $_ := set $flags "revision" . -}}{{- end -}}
{{- if eq (include "engine.scheme" .) "s3" -}}{{- $_ := set $flags "load-format" "runai_streamer" -}}{{- end -}}
{{- range $name, $value := $flags }}{{ include "engine.flag" (list $name $value) }}{{ end -}}
{{- end -}}

{{/* The flags that join the pods of a replica, by the variables of the LeaderWorkerSet. Takes (list root role). */}}
{{- define "engine.nodeFlags" -}}
{{- $root := index . 0 -}}
{{- $isWorker := eq (index . 1) "worker" -}}
{{- if eq $root.Values.multiNode.backend "ray" }}
- "--distributed-executor-backend=ray"
{{- else }}
- "--nnodes=$(LWS_GROUP_SIZE)"
- "--node-rank={{ ternary "$(LWS_WORKER_INDEX)" "0" $isWorker }}"
- "--master-addr=$(LWS_LEADER_ADDRESS)"
- "--master-port={{ $root.Values.multiNode.port }}"
{{- if $isWorker }}
- "--headless"
{{- end }}
{{- end }}
{{- end -}}

{{/* Command and arguments of an engine's container. Takes (list root role): single, leader or worker. */}}
{{- define "engine.command" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $withRay := and (ne $role "single") (eq $root.Values.multiNode.backend "ray") -}}
{{- if and $withRay (eq $role "worker") }}
command: [ray, start]
args: ["--address=$(LWS_LEADER_ADDRESS):{{ $root.Values.multiNode.port }}", --block, --disable-usage-stats]
{{- else }}
{{- if $withRay }}
command:
  - /bin/sh
  - -c
  - ray start --head --port={{ $root.Values.multiNode.port }} --disable-usage-stats && exec "$@"
  - sh
  - gemma-gateway
{{- else }}
command: [gemma-gateway]
{{- end }}
args:
  - engine
  - {{ include "engine.modelArgument" $root | quote }}
  - "--host={{ $root.Values.host }}"
  - "--port={{ $root.Values.port }}"
  - "--drain-seconds={{ $root.Values.drainSeconds }}"
  {{- if $root.Values.draft }}
  - --draft
  {{- end }}
  {{- if not $root.Values.warmUp }}
  - --no-warm-up
  {{- end }}
  - --
  {{- include "engine.ownFlags" $root | trim | nindent 2 }}
  {{- if ne $role "single" }}
  {{- include "engine.nodeFlags" . | trim | nindent 2 }}
  {{- end }}
  {{- range $name, $value := $root.Values.args }}
  {{- with include "engine.flag" (list $name $value) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- range $root.Values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}
