{{/* What restarts the pods when it changes: all of the configuration, or as much of it as no running gateway takes over. */}}
{{- define "gateway.checksum" -}}
{{- $config := include "gateway.config" . -}}
{{- eq .Values.reload "restart" | ternary $config (fromYaml $config | dig "server" dict | toYaml) | sha256sum -}}
{{- end -}}

{{- define "gateway.podSpec" -}}
serviceAccountName: {{ include "gateway.serviceAccountName" . }}
automountServiceAccountToken: {{ .Values.rbac.create }}
{{- /* The variables that Kubernetes makes of a Service called gemma-gateway would be read as settings. */}}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ addf .Values.drainSeconds 10 | ceil | int }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
containers:
- name: gateway
  {{- include "gateway.container" . | nindent 2 }}
{{- with .Values.extraContainers }}
{{ toYaml . }}
{{- end }}
volumes:
{{- include "gateway.volumes" . | nindent 0 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with .Values.topologySpreadConstraints }}
{{ toYaml . }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "gateway.selectorLabels" (list $ "gateway") | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "gateway.container" -}}
image: {{ include "gateway.image" (list .Values.image .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [gemma-gateway]
args:
- gateway
- --config
- /etc/gemma-gateway/config.yaml
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
env:
{{- /* Libraries write their caches there. */}}
- name: HOME
  value: /tmp
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
{{ toYaml . }}
{{- end }}
ports:
- name: http
  containerPort: 8000
- name: admin
  containerPort: 9090
startupProbe:
  httpGet: {path: /livez, port: admin}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: {{ eq .Values.readiness "engine" | ternary "/readyz" "/livez" }}, port: admin}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
- name: tmp
  mountPath: /tmp
- name: config
  mountPath: /etc/gemma-gateway
  readOnly: true
{{- if ne .Values.keys.source "none" }}
- name: keys
  mountPath: /etc/gemma-gateway-keys
  readOnly: true
{{- end }}
{{- if include "gateway.storePassword" . }}
- name: store
  mountPath: /etc/gemma-gateway-store
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Folders, not subPaths: the kubelet updates those, and the gateway takes over what has changed. */}}
{{- define "gateway.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.tmpSize }}}
- name: config
  configMap: {name: {{ include "gateway.configMapName" . }}}
{{- if ne .Values.keys.source "none" }}
- name: keys
  projected:
    sources:
    {{- range .Values.keys.existing }}
    - secret:
        name: {{ .secret }}
        items: [{key: {{ .key | default "keys.yaml" }}, path: {{ printf "%s.%s" .secret (.key | default "keys.yaml") }}}]
    {{- else }}
    {{- /* Not the generated key itself, which lies beside it. */}}
    - secret:
        name: {{ include "gateway.keysName" . }}
        items: [{key: keys.yaml, path: keys.yaml}]
    {{- end }}
{{- end }}
{{- with include "gateway.storePassword" . }}
{{- $password := fromJson . }}
- name: store
  secret:
    secretName: {{ $password.name }}
    items: [{key: {{ $password.key }}, path: password}]
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
