{{/* A container that runs a script of this chart. Takes (list root name script arguments). */}}
{{- define "engine.scriptContainer" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  image: {{ include "engine.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [python, -c]
  args:
    - |
      {{- $root.Files.Get (printf "files/%s" (index . 2)) | trim | nindent 6 }}
    {{- range index . 3 }}
    - {{ . | quote }}
    {{- end }}
  securityContext:
    {{- toYaml $root.Values.securityContext | nindent 4 }}
{{- end -}}

{{/* Holds an engine back until the download Job has left its mark. */}}
{{- define "engine.waitContainer" -}}
{{ include "engine.scriptContainer" (list . "wait-for-model" "wait.py" (list (include "engine.mark" .))) }}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 128Mi}
  volumeMounts:
    - {name: cache, mountPath: /var/cache/huggingface}
{{- end -}}

{{/* The download Job's specification. It cannot be changed once it is there: the Job's name has its checksum. */}}
{{- define "engine.downloadSpec" -}}
{{- $wanted := dict "model" (include "engine.address" .) "revision" .Values.modelArtifacts.revision -}}
{{- $_ := set $wanted "also" .Values.cache.download.also -}}
{{- $_ := set $wanted "ignore" .Values.cache.download.ignore -}}
backoffLimit: {{ .Values.cache.download.retries }}
template:
  metadata:
    labels:
      app.kubernetes.io/name: {{ include "engine.name" . }}
      app.kubernetes.io/instance: {{ .Release.Name }}
      app.kubernetes.io/component: download
  spec:
    restartPolicy: OnFailure
    {{- include "engine.podIdentity" . | nindent 4 }}
    {{- with include "engine.placement" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    containers:
      {{- include "engine.scriptContainer" (list . "download" "download.py" (list (toJson $wanted) (include "engine.mark" .))) | nindent 6 }}
        env:
          - {name: HOME, value: /tmp}
          - {name: HF_HOME, value: /var/cache/huggingface}
          {{- with include "engine.credentials" . | trim }}
          {{- . | nindent 10 }}
          {{- end }}
          {{- with .Values.extraEnv }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        {{- with include "engine.envFrom" . }}
        {{- . | nindent 8 }}
        {{- end }}
        resources:
          {{- toYaml .Values.cache.download.resources | nindent 10 }}
        volumeMounts:
          - {name: cache, mountPath: /var/cache/huggingface}
          - {name: tmp, mountPath: /tmp}
    volumes:
      {{- include "engine.cacheVolume" . | nindent 6 }}
      - name: tmp
        emptyDir: {sizeLimit: {{ .Values.scratch.sizeLimit }}}
{{- end -}}
