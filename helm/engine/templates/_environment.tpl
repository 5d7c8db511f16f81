{{/* Variables of all containers that touch the model. */}}
{{- define "engine.env" -}}
- {name: HOME, value: /scratch}
# torch asks for a name, and the image knows none for this user.
- {name: USER, value: engine}
- {name: HF_HOME, value: /var/cache/huggingface}
{{- if .Values.cache.download.enabled }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- include "engine.credentials" . }}
{{- end -}}

{{/* What opens the hub or the store, from Secrets. */}}
{{- define "engine.credentials" -}}
{{- with .Values.modelArtifacts.hfToken }}
{{- if .existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- with .Values.modelArtifacts.s3.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.modelArtifacts.s3.region }}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* Variables from whole Secrets and ConfigMaps. */}}
{{- define "engine.envFrom" -}}
{{- $sources := .Values.extraEnvFrom -}}
{{- with .Values.modelArtifacts.s3.existingSecret -}}
{{- $sources = prepend $sources (dict "secretRef" (dict "name" .)) -}}
{{- end -}}
{{- with $sources -}}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Where an engine keeps things. */}}
{{- define "engine.volumes" -}}
{{- include "engine.cacheVolume" . }}
- name: scratch
  emptyDir: {sizeLimit: {{ .Values.scratch.sizeLimit }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.scratch.sizeLimit }}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ default (printf "%dGi" (add 2 (include "engine.gpusPerPod" .))) .Values.shm.size }}}
{{- if eq (include "engine.scheme" .) "pvc" }}
- name: model
  persistentVolumeClaim: {claimName: {{ include "engine.claim" . }}, readOnly: true}
{{- else if eq (include "engine.scheme" .) "oci" }}
- name: model
  image: {reference: {{ include "engine.address" . | quote }}, pullPolicy: IfNotPresent}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* HF_HOME. */}}
{{- define "engine.cacheVolume" -}}
- name: cache
  {{- if .Values.cache.enabled }}
  persistentVolumeClaim: {claimName: {{ include "engine.cacheClaim" . }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.cache.size }}}
  {{- end }}
{{- end -}}

{{/* Where an engine finds them. */}}
{{- define "engine.volumeMounts" -}}
- {name: cache, mountPath: /var/cache/huggingface}
- {name: scratch, mountPath: /scratch}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if has (include "engine.scheme" .) (list "pvc" "oci") }}
- {name: model, mountPath: /models, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
